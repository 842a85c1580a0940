"""Users' own images, in a folder or below a prefix of a bucket, with the captions that lie beside them."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path

from service.artifacts.keys import content_key
from service.dataset.candidates import Candidate, Reason, Rejection
from service.dataset.notes import Note
from service.dataset.sources.interface import Captioned, Read
from service.dataset.sources.leftovers import is_leftover
from service.dataset.sources.sidecars import captioned
from service.exits import MissingInput
from service.storage.disk import disk_errors
from service.storage.interface import ObjectStore
from service.storage.keys import is_safe


class FolderSource:
    """The files below a local folder, which the user calls `name`; the folders `own` inside are passed over."""

    def __init__(self, folder: Path, name: str, own: Sequence[Path] = (), parents: Sequence[str] = ()) -> None:
        self._folder = folder
        self.place = f"DATA_PREP_FOLDER={name}"
        self.parents = list(parents)
        with disk_errors(folder, "DATA_PREP_FOLDER"):
            files = {file.relative_to(folder).as_posix(): file.stat() for file in _files_below(folder, own)}
        self._files = {
            name: [about.st_size, about.st_mtime_ns] for name, about in sorted(files.items()) if not is_leftover(name)
        }

    def state(self) -> str:
        """Names, sizes and times of the files."""
        return content_key(self._files)

    def candidates(self) -> list[Candidate]:
        return self._captioned.candidates

    def notes(self) -> Counter[Note]:
        return self._captioned.notes

    @cached_property
    def _captioned(self) -> Captioned:
        with disk_errors(self._folder, "DATA_PREP_FOLDER"):
            return captioned(list(self._files), lambda name: (self._folder / name).read_bytes(), str(self._folder))

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Read]:
        async def read(candidate: Candidate) -> bytes | Path:
            return self._folder / candidate.origin

        yield read


class BucketSource:
    """The objects below an S3 prefix. Those of more than `max_bytes` are not downloaded."""

    def __init__(self, store: ObjectStore, max_bytes: int) -> None:
        self.place = f"DATA_PREP_FOLDER={store.uri}"
        self.parents: list[str] = []
        self._store = store
        self._max_bytes = max_bytes
        found = {stored.key: stored.size for stored in sorted(store.list(""))}
        if not found:
            raise MissingInput(f"{self.place} holds no object; check the bucket and the prefix")
        # Tools that show a bucket as folders mark an empty one by an empty object.
        marks = {key for key, size in found.items() if key.endswith("/") and not size}
        self._sizes = {key: size for key, size in found.items() if key not in marks and not is_leftover(key)}

    def state(self) -> str:
        """Keys and sizes of the objects, and the captions, which may change and keep their size."""
        return content_key({**self._sizes, "": [candidate.caption for candidate in self.candidates()]})

    def candidates(self) -> list[Candidate]:
        return self._captioned.candidates

    def notes(self) -> Counter[Note]:
        return self._captioned.notes

    @cached_property
    def _captioned(self) -> Captioned:
        return captioned(
            list(self._sizes), lambda name: self._store.get(name) if is_safe(name) else b"", self._store.uri
        )

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Read]:
        async def read(candidate: Candidate) -> bytes | Path:
            if (size := self._sizes.get(candidate.origin, 0)) > self._max_bytes:
                raise Rejection(Reason.TOO_LARGE_BYTES, f"{size} bytes")
            if not is_safe(candidate.origin):
                # Anybody may have put it there: one odd key must not end the job.
                raise Rejection(Reason.BLOCKED_ADDRESS, "a key with empty or relative parts, or unprintable")
            return await asyncio.to_thread(self._store.get, candidate.origin)

        yield read


def _files_below(folder: Path, own: Sequence[Path]) -> list[Path]:
    """The regular files below `folder`, but for those in the folders `own`. Raises OSError."""

    def fail(error: OSError) -> None:
        raise error  # a folder that cannot be read must not look like an empty one

    found = []
    for parent, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if Path(parent, name).resolve() not in own]
        # is_file: to open a pipe would wait for ever.
        found += [file for name in names if (file := Path(parent, name)).is_file()]
    return found
