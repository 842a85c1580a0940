"""What a place for artifacts can do, and how to open one by its URI."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Protocol, runtime_checkable

from service.exits import BadConfiguration, MissingInput

TEMPORARY = ".sdlora-tmp-"
"""Start of the name of a file under construction. No key has it, and no listing shows it."""

SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):/")


class NotFound(MissingInput):
    """The store answered, and there is nothing under this key."""


LONG_AGO = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True, order=True)
class StoredObject:
    """An object of a listing. `modified` is when it was last written, by the store's clock; it is not compared."""

    key: str
    size: int
    modified: datetime = field(default=LONG_AGO, compare=False)


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A write that has made nothing visible: a multipart upload, or a temporary file. `touched`: its last progress."""

    key: str
    name: str
    touched: datetime
    size: int


class ObjectStore(Protocol):
    """Keys to bytes, on S3 or in a folder. A key is a relative path with forward slashes, without "." or "..".

    `put` and `put_if_absent` are atomic: a reader sees the old object, the new one, or none. `list` gives, in no
    promised order, every object whose key starts with the prefix, and never a file under construction. `delete` of a
    missing key does nothing. Refused credentials raise `AccessDenied`, a missing key `NotFound`, a missing bucket
    `MissingInput`, a silent server `StorageUnreachable`, a failing disk `InputOutput`; never one for another.
    A store may be used by many threads.
    """

    uri: str

    def put(self, key: str, data: bytes | Path) -> None:
        """Stores bytes, or the content of a file, under the key, in place of what was there."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Stores unless something else is there. True: `data` is what the key holds now; False: it was there already.

        Of two simultaneous writers of different data only one gets True, wherever the server has conditional writes.
        Where it ignores them the last one stays, and who reads another's data back gets False.
        """

    def get(self, key: str) -> bytes:
        """The object's content; `NotFound` when there is none."""

    def download(self, key: str, target: Path) -> None:
        """Writes the object's content to the file `target`; `NotFound` when there is none."""

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Objects whose key starts with `prefix`, which need not end at a slash."""

    def delete(self, key: str) -> None:
        """Removes the object, if there is one."""


@runtime_checkable
class LeavesUnfinished(Protocol):
    """What a store can do about the writes of killed writers, which no listing shows and which take up space."""

    def unfinished(self, before: datetime) -> Iterator[Unfinished]:
        """Unfinished writes that made no progress since `before`; none where the store cannot tell."""

    def discard(self, write: Unfinished) -> None:
        """Frees what an unfinished write holds. Does nothing when it is finished or gone by now."""


def open_store(uri: str) -> ObjectStore:
    """Opens `s3://bucket/prefix` or a folder. Nothing is contacted before the first use."""
    if uri.startswith("s3://"):
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if not bucket:
            raise BadConfiguration(f"{uri!r} names no bucket; write s3://bucket/prefix")
        # boto3 takes half a second to import; whoever works in a folder need not wait for it.
        from service.artifacts.s3_store import S3Store

        return S3Store(bucket, checked_key(prefix.strip("/")) if prefix.strip("/") else "")
    if not uri.strip() or SCHEME.match(uri):
        raise BadConfiguration(f"{uri!r} is no place for artifacts; use s3://bucket/prefix or the path of a folder")
    from service.artifacts.local_store import LocalStore

    return LocalStore(Path(uri))


def is_safe(path: str) -> bool:
    """Whether the path stays below the folder that it is appended to, and reads the same on S3 and on disk."""
    return (
        path not in ("", ".")
        and str(PurePosixPath(path)) == path
        and not path.startswith("/")
        and ".." not in path.split("/")
        and "\\" not in path
        and path.isprintable()
        and not any(part.startswith(TEMPORARY) for part in path.split("/"))
    )


def checked_key(key: str) -> str:
    """The key itself. One that could leave the store, or that only one kind of store can hold, is refused."""
    if not is_safe(key):
        raise BadConfiguration(f"{key!r} cannot be a key: it must be a relative path without '.', '..' or empty parts")
    return key
