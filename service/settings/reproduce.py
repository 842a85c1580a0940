"""Settings of `sdlora reproduce`."""

from pydantic_settings import CliImplicitFlag, CliPositionalArg

from service.settings.common import CommonSettings, prefixed
from service.settings.declaring import only_how
from service.settings.places import ArtifactPath, Place


class ReproduceSettings(CommonSettings):
    """Trains and evaluates again, from the manifests of an evaluation, and tells which hashes come out the same."""

    model_config = prefixed("reproduce", short={"reproduce-as-json": "json"})

    evaluation: CliPositionalArg[ArtifactPath | None] = only_how(
        None, description="Path of the evaluation below ARTIFACTS_URI."
    )
    store: Place | None = only_how(
        None,
        description="Folder or s3:// prefix in which everything is made again; without it, a folder below WORK_DIR for each "
        "evaluation. What is there already is not made again.",
    )
    as_json: CliImplicitFlag[bool] = only_how(False, description="Tells it as JSON; `--json` for short.")
