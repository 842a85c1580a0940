"""Bytes on their way to S3, checked against the MD5 that a server tells.

The sha256 of an artifact's manifest decides in the end. MD5 finds a byte that was damaged on the way up while the file is
still here to be sent again, and one on the way down before it is taken for damage in the store.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from botocore.exceptions import ClientError

from service.exits import StorageUnreachable
from service.storage.s3.connection import ATTEMPTS, Connection, backoff
from service.storage.s3.errors import DAMAGED_ON_THE_WAY, code_of, require_answer

log = structlog.get_logger(__name__)

MD5 = re.compile(r"^[0-9a-f]{32}$")


def reported_md5(answer: Mapping[str, Any]) -> str | None:
    """The MD5 of the object or part that an answer is about, where its ETag is one. Encrypted objects have another."""
    etag = str(answer.get("ETag", "")).strip('"')
    encrypted = "SSECustomerAlgorithm" in answer or answer.get("ServerSideEncryption", "AES256") != "AES256"
    return etag if MD5.match(etag) and not encrypted else None


def sent_whole(
    connection: Connection, send: Callable[[], Mapping[str, Any]], md5: Callable[[], str], what: str
) -> Mapping[str, Any]:
    """Sends until the server says that it has what was sent. Returns its answer, in which there is an ETag.

    When it tells the same other ETag twice, its ETags are no MD5, as those of some servers. When it tells another each time
    they are none either, as those of gateways that encrypt without saying so; the network damages no thing so often. That
    is a warning, once: the sha256 of the manifest still guards.
    """
    before, answer = "", None
    for number in range(ATTEMPTS):
        try:
            answer = send()
        except ClientError as error:
            if code_of(error) not in DAMAGED_ON_THE_WAY:
                raise
            answer = None
        else:
            require_answer(answer, "ETag", what)
            reported = reported_md5(answer)
            if not connection.etags_are_md5 or reported in (None, before) or reported == md5():
                return answer
            before = str(reported)
        backoff(number)
    if answer is not None:
        connection.etags_are_md5 = False
        log.warning("ETags of the server are no MD5 of what it was sent; they are no longer compared", example=what)
        return answer
    raise StorageUnreachable(f"{what} does not arrive as it is sent; check the network, and what lies between")
