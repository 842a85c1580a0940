"""What boto3 takes from a configuration file only, or not at all. Its own variables (AWS_…) keep their names."""

from typing import Literal

from service.settings.declaring import only_how
from service.settings.remote import RemoteSettings


class S3Settings(RemoteSettings):
    """How a server of S3 is spoken to, where that is a setting of ours; read from the environment wherever one is opened."""

    s3_addressing_style: Literal["auto", "path", "virtual"] = only_how(
        "auto",
        validation_alias="s3_addressing_style",
        description="Whether the bucket stands in the path or in the host's name; auto: in the path for an endpoint of "
        "one's own, in the name on AWS.",
    )
    s3_connect_timeout: float = only_how(
        10,
        validation_alias="s3_connect_timeout",
        gt=0,
        le=3600,
        description="Seconds until a connection must stand.",
    )
    s3_read_timeout: float = only_how(
        60,
        validation_alias="s3_read_timeout",
        gt=0,
        le=3600,
        description="Seconds that a server may say nothing in the middle of an answer.",
    )

    def or_else(self, **others: float) -> "S3Settings":
        """The same with other values for those that nobody has set."""
        return self.model_copy(
            update={name: value for name, value in others.items() if name not in self.model_fields_set}
        )
