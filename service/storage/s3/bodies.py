"""Bytes on their way to and from S3, checked against the MD5 that a server tells.

The sha256 of an artifact's manifest decides in the end. MD5 finds a byte that was damaged on the way up while the file is
still here to be sent again, and one on the way down before it is taken for damage in the store.
"""

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import structlog
from botocore.exceptions import ClientError

from service.exits import StorageUnreachable
from service.storage.s3.connection import ATTEMPTS, Connection, backoff
from service.storage.s3.errors import DAMAGED_ON_THE_WAY, code_of

log = structlog.get_logger(__name__)

MD5 = re.compile(r"^[0-9a-f]{32}$")
BLOCK = 1 << 18


def md5_of(data: bytes) -> str:
    """In hex."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def reported_md5(answer: Mapping[str, Any]) -> str | None:
    """The MD5 of the object or part that an answer is about, where its ETag is one. Encrypted objects have another."""
    etag = str(answer.get("ETag", "")).strip('"')
    encrypted = "SSECustomerAlgorithm" in answer or answer.get("ServerSideEncryption", "AES256") != "AES256"
    return etag if MD5.match(etag) and not encrypted else None


class Slice:
    """A part of a file as a body to send: `length` bytes from `start`. Its MD5 is known once it was read to the end."""

    def __init__(self, file: Path, start: int, length: int) -> None:
        self._source = os.open(file, os.O_RDONLY)
        self._start, self._length = start, length
        self._position = self._hashed = 0
        self._md5 = hashlib.md5(usedforsecurity=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._source)

    def __len__(self) -> int:
        return self._length

    def read(self, size: int = -1) -> bytes:
        """At least `size` bytes, or all that are left."""
        left = self._length - self._position
        # urllib3 asks for 16 KiB at a time, at which Python takes longer than the network.
        block = os.pread(self._source, min(left, max(size, BLOCK)) if size >= 0 else left, self._start + self._position)
        if self._position == self._hashed:
            # boto3 reads it once to sign it, then to send it, and again for each repetition.
            self._md5.update(block)
            self._hashed += len(block)
        self._position += len(block)
        return block

    def tell(self) -> int:
        """How far it was read, in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves to a place of the slice, counted as in files; returns it. boto3 rewinds a body to send it again."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length}[whence]
        self._position = base + offset
        return self._position

    def md5(self) -> str:
        """Of the whole part, in hex; reads on where nobody has read it to the end."""
        self.seek(self._hashed)
        while self.read(BLOCK):
            pass
        return self._md5.hexdigest()


def rewound(body: bytes | Slice) -> Any:
    """The body from its start, whoever has read it before. What boto3's types do not know is that it takes a Slice."""
    if isinstance(body, Slice):
        body.seek(0)
    return body


def sent_whole(connection: Connection, send: Callable[[], Mapping[str, Any]], md5: Callable[[], str], what: str) -> str:
    """Sends until the server says that it has what was sent. Returns its ETag.

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
            reported = reported_md5(answer)
            if not connection.etags_are_md5 or reported in (None, before) or reported == md5():
                return str(answer["ETag"])
            before = str(reported)
        backoff(number)
    if answer is not None:
        connection.etags_are_md5 = False
        log.warning("ETags of the server are no MD5 of what it was sent; they are no longer compared", example=what)
        return str(answer["ETag"])
    raise StorageUnreachable(f"{what} does not arrive as it is sent; check the network, and what lies between")
