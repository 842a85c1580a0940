"""How patient the jobs are with servers that do not answer: the object store, and the model hub."""

from service.settings.base import YEAR, Settings
from service.settings.declaring import only_how


class RemoteSettings(Settings):
    """Read from the environment wherever a server is spoken to."""

    retry_seconds: float = only_how(
        90,
        validation_alias="retry_seconds",
        ge=0,
        le=YEAR,
        description="Seconds for which a store or a model hub that does not answer is asked again, at least.",
    )
