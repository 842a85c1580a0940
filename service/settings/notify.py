"""Where the end of a job, and a new champion, are told to."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, PlainSerializer
from pydantic_core import PydanticCustomError

from service.redaction import STARS
from service.settings.base import CREDENTIALS_INSIDE, Settings
from service.settings.declaring import only_how
from service.settings.places import LocalPath


def _checked_address(url: str) -> str:
    """The address itself; what is wrong with one is said without it, since its path may be a secret."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        known = False
    if not known or not url.isascii() or " " in url:
        raise PydanticCustomError(CREDENTIALS_INSIDE, "is no address; write https://host/path")
    return url


def shown_address(url: str) -> str:
    """The address as manifests and logs may have it: whoever knows its path may post to it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}" + (f"/{STARS}" if parts.path.strip("/") or parts.query else "")


class NotifySettings(Settings):
    """Read from the environment whenever there is something to tell."""

    notify_url: Annotated[str, AfterValidator(_checked_address), PlainSerializer(shown_address)] | None = only_how(
        None,
        validation_alias="notify_url",
        description="Address to which the end of every job, and every new champion, is told: a CloudEvent, by HTTP POST.",
    )
    notify_secret_file: LocalPath | None = only_how(
        None,
        validation_alias="notify_secret_file",
        description="File with the secret that signs it, as Standard Webhooks have it: `whsec_` and 24 to 64 bytes in base64; "
        "without it, it is not signed.",
    )
    notify_seconds: float = only_how(
        10,
        validation_alias="notify_seconds",
        gt=0,
        le=300,
        description="Seconds that telling it takes at most, with all repetitions; what could not be told is a warning.",
    )
