"""What some servers ask for beyond the rest of them: learnt from a refusal, and heeded from then on.

Buckets with object lock want Content-MD5 (OCI), or that or a checksum (AWS), with each write; sent to all, many servers would
refuse it. Some servers and proxies answer `Expect: 100-continue` with 417.
"""

import threading
from typing import TYPE_CHECKING, Any

import structlog
from botocore.exceptions import ClientError

from service.storage.s3.errors import DAMAGED_ON_THE_WAY, code_of, status_of
from service.storage.s3.slices import content_md5

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = structlog.get_logger(__name__)

WRITES = ("PutObject", "UploadPart")
MD5, CHECKSUMS, NO_EXPECT = "Content-MD5", "a checksum", "no Expect"


class Demands:
    """What one server has asked for so far. Used by many threads at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.known: frozenset[str] = frozenset()
        """MD5 and NO_EXPECT are heeded by the client; for CHECKSUMS, which boto3 computes, it must be a new one."""

    def learn_from(self, error: ClientError, heeded: frozenset[str]) -> bool:
        """Whether the refusal asks for something, so that the request is worth a repetition.

        heeded: what was known when the request was made; to be asked for it again is no news.
        """
        asked = _asked_for(error)
        if asked is None or asked in heeded:
            return False
        with self._lock:
            if asked not in self.known:
                reason = error.response.get("Error", {}).get("Message", "")
                log.info("the server asks for more than others, and gets it from now on", asked=asked, reason=reason)
            self.known |= {asked}
        return True

    def heed_in(self, client: "S3Client") -> None:
        """From now on the client sends what is asked for, or was asked for by then."""
        for operation in WRITES:
            client.meta.events.register(f"before-parameter-build.s3.{operation}", self._add_md5)
        client.meta.events.register_last("before-call.s3", self._drop_expect)

    def _add_md5(self, params: dict[str, Any], **_: Any) -> None:
        if MD5 in self.known:
            params["ContentMD5"] = content_md5(params["Body"])

    def _drop_expect(self, params: dict[str, Any], **_: Any) -> None:
        if NO_EXPECT in self.known:
            params["headers"].pop("Expect", None)


def _asked_for(error: ClientError) -> str | None:
    """The demand in a refusal; None for one that asks for nothing."""
    if status_of(error) == 417:
        return NO_EXPECT
    text = f"{code_of(error)} {error.response.get('Error', {}).get('Message', '')}".lower().replace("-", "")
    # Of a Content-MD5 or a checksum that does not fit the same words are said.
    if status_of(error) != 400 or code_of(error) in DAMAGED_ON_THE_WAY:
        return None
    if "contentmd5" in text:
        return MD5
    if "checksum" in text and any(word in text for word in ("requir", "missing", "must")):
        return CHECKSUMS
    return None
