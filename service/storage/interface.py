"""What a store can do: keys to bytes, on S3 or in a folder."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, runtime_checkable

from service.exits import MissingInput


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
class KeepsFolders(Protocol):
    """A store whose objects are files of this machine, so that they can be read where they are."""

    def folder(self, path: str) -> Path:
        """The folder of all keys below `path`; of the whole store for an empty path."""


@runtime_checkable
class TellsConditions(Protocol):
    """A store that can tell what its `put_if_absent` is worth."""

    def honours_conditions(self) -> bool:
        """Whether of two simultaneous `put_if_absent` of different data only one ever gets True. Leaves nothing behind."""


@runtime_checkable
class LeavesUnfinished(Protocol):
    """What a store can do about the writes of killed writers, which no listing shows and which take up space."""

    def unfinished(self, before: datetime) -> Iterator[Unfinished]:
        """Unfinished writes that made no progress since `before`; none where the store cannot tell."""

    def discard(self, write: Unfinished) -> None:
        """Frees what an unfinished write holds. Does nothing when it is finished or gone by now."""
