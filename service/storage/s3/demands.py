"""What some servers ask for beyond the rest of them: learnt from a refusal, and heeded from then on.

Buckets with object lock want Content-MD5 (OCI), or that or a checksum (AWS), with each write; sent to all, many servers would
refuse it. Some servers and proxies answer `Expect: 100-continue` with 417.
"""

from typing import TYPE_CHECKING, Any

import structlog
from botocore.exceptions import ClientError

from service.storage.s3.errors import DAMAGED_ON_THE_WAY, code_of, status_of
from service.storage.s3.slices import content_md5

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = structlog.get_logger(__name__)

WRITES = ("PutObject", "UploadPart")


class Demands:
    """What one server has asked for so far. Used by many threads at once."""

    def __init__(self) -> None:
        self.md5 = False
        self.checksums = False
        """Those that boto3 computes by itself; the client must be a new one."""
        self.no_expect = False

    def learn_from(self, error: ClientError) -> bool:
        """Whether the refusal asks for something that was not sent, so that the request is worth a repetition."""
        asked = _asked_for(error)
        if asked is None or getattr(self, asked):
            return False
        setattr(self, asked, True)
        message = error.response.get("Error", {}).get("Message", "")
        log.info("the server asks for more than others, and gets it from now on", asked=asked, reason=message)
        return True

    def heed_in(self, client: "S3Client") -> None:
        """From now on the client sends what is asked for, or was asked for by then."""
        for operation in WRITES:
            client.meta.events.register(f"before-parameter-build.s3.{operation}", self._add_md5)
        client.meta.events.register_last("before-call.s3", self._drop_expect)

    def _add_md5(self, params: dict[str, Any], **_: Any) -> None:
        if self.md5:
            params["ContentMD5"] = content_md5(params["Body"])

    def _drop_expect(self, params: dict[str, Any], **_: Any) -> None:
        if self.no_expect:
            params["headers"].pop("Expect", None)


def _asked_for(error: ClientError) -> str | None:
    """The name of the demand in a refusal; None for one that asks for nothing."""
    if status_of(error) == 417:
        return "no_expect"
    text = f"{code_of(error)} {error.response.get('Error', {}).get('Message', '')}".lower().replace("-", "")
    # Of a Content-MD5 or a checksum that does not fit the same words are said.
    if status_of(error) != 400 or code_of(error) in DAMAGED_ON_THE_WAY:
        return None
    if "contentmd5" in text:
        return "md5"
    if "checksum" in text and any(word in text for word in ("requir", "missing", "must")):
        return "checksums"
    return None
