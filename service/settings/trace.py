"""Settings of `sdlora trace`."""

from typing import Literal

from pydantic_settings import CliImplicitFlag, CliPositionalArg

from service.settings.base import Text
from service.settings.common import CommonSettings, prefixed
from service.settings.declaring import only_how

LookAlikes = Literal["include", "leave-out"]
LOOK_ALIKES = "Whether pictures that look like it, such as copies in another size or format, count as the image."


class TraceSettings(CommonSettings):
    """Tells which data sets hold an image, and which LoRAs, champions and drawn pictures descend from them."""

    model_config = prefixed("trace", short={"trace-as-json": "json"})

    image: CliPositionalArg[str | None] = only_how(
        None,
        description="The image: its URL or that of its page, a sha256 of its file or pixels, or a file, local or s3://.",
    )
    look_alikes: LookAlikes = only_how("include", description=LOOK_ALIKES)
    exclude: Text = only_how(
        "",
        description="A reason to withdraw the image: a record in the store then keeps it, and what looks like it, out of every "
        "data set that is prepared from now on.",
    )
    as_json: CliImplicitFlag[bool] = only_how(False, description="Tells it as JSON; `--json` for short.")
