"""Settings of `sdlora diff`."""

from pydantic_settings import CliImplicitFlag, CliPositionalArg

from service.settings.common import CommonSettings, prefixed
from service.settings.declaring import only_how
from service.settings.places import ArtifactPath


class DiffSettings(CommonSettings):
    """Tells what changed from one data set to another: images, captions, sides of the split, hosts, licences."""

    model_config = prefixed("diff", short={"diff-as-json": "json"})

    before: CliPositionalArg[ArtifactPath | None] = only_how(
        None, description="Path of the earlier data set below ARTIFACTS_URI."
    )
    after: CliPositionalArg[ArtifactPath | None] = only_how(None, description="Path of the later one.")
    as_json: CliImplicitFlag[bool] = only_how(False, description="Tells it as JSON; `--json` for short.")
