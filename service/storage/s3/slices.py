"""What is sent to S3: bytes, and parts of files that are read as they are sent."""

import base64
import hashlib
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

BLOCK = 1 << 18


def md5_of(data: bytes) -> str:
    """In hex."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


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


def content_md5(body: bytes | Slice) -> str:
    """The MD5 of a body as the header Content-MD5 has it, in base64. The body is at its start afterwards."""
    digest = body.md5() if isinstance(body, Slice) else md5_of(body)
    rewound(body)
    return base64.b64encode(bytes.fromhex(digest)).decode()
