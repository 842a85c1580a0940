"""Users' own images, in a folder or below a prefix of a bucket, with the captions that lie beside them."""

import asyncio
import csv
import io
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path, PurePosixPath

import structlog

from service.artifacts.keys import content_key
from service.dataset.candidates import Candidate, Reason, Rejection
from service.exits import MissingInput
from service.storage.disk import disk_errors
from service.storage.interface import ObjectStore
from service.storage.keys import is_safe
from service.storage.parallel import for_each

METADATA = "metadata.csv"
CAPTION_COLUMNS = ("caption", "text")

log = structlog.get_logger(__name__)


class FolderSource:
    """The files below a local folder; the folders `own` inside are passed over."""

    def __init__(self, folder: Path, own: Sequence[Path] = (), parents: Sequence[str] = ()) -> None:
        self._folder = folder
        self.parents = list(parents)
        with disk_errors(folder, "DATA_PREP_FOLDER"):
            files = {file.relative_to(folder).as_posix(): file.stat() for file in files_below(folder, own)}
        self._files = {name: [about.st_size, about.st_mtime_ns] for name, about in sorted(files.items())}

    def state(self) -> str:
        """Names, sizes and times of the files."""
        return content_key(self._files)

    def candidates(self) -> list[Candidate]:
        with disk_errors(self._folder, "DATA_PREP_FOLDER"):
            return captioned(list(self._files), lambda name: (self._folder / name).read_bytes())

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Callable[[Candidate], Awaitable[bytes | Path]]]:
        async def read(candidate: Candidate) -> bytes | Path:
            return self._folder / candidate.origin

        yield read


class BucketSource:
    """The objects below an S3 prefix. Those of more than `max_bytes` are not downloaded."""

    def __init__(self, store: ObjectStore, max_bytes: int) -> None:
        self.parents: list[str] = []
        self._store = store
        self._max_bytes = max_bytes
        self._sizes = {stored.key: stored.size for stored in sorted(store.list(""))}
        if not self._sizes:
            raise MissingInput(f"DATA_PREP_FOLDER={store.uri} holds no object; check the bucket and the prefix")

    def state(self) -> str:
        """Keys and sizes of the objects, and the captions, which may change and keep their size."""
        return content_key({**self._sizes, "": [candidate.caption for candidate in self._candidates]})

    def candidates(self) -> list[Candidate]:
        return self._candidates

    @cached_property
    def _candidates(self) -> list[Candidate]:
        return captioned(list(self._sizes), lambda name: self._store.get(name) if is_safe(name) else b"")

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Callable[[Candidate], Awaitable[bytes | Path]]]:
        async def read(candidate: Candidate) -> bytes | Path:
            if (size := self._sizes.get(candidate.origin, 0)) > self._max_bytes:
                raise Rejection(Reason.TOO_LARGE_BYTES, f"{size} bytes")
            if not is_safe(candidate.origin):
                # Anybody may have put it there: one odd key must not end the job.
                raise Rejection(Reason.BLOCKED_ADDRESS, "a key with empty or relative parts, or unprintable")
            return await asyncio.to_thread(self._store.get, candidate.origin)

        yield read


def files_below(folder: Path, own: Sequence[Path]) -> list[Path]:
    """The regular files below `folder`, but for those in the folders `own`. Raises OSError."""

    def fail(error: OSError) -> None:
        raise error  # a folder that cannot be read must not look like an empty one

    found = []
    for parent, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if Path(parent, name).resolve() not in own]
        # is_file: to open a pipe would wait for ever.
        found += [file for name in names if (file := Path(parent, name)).is_file()]
    return found


def captioned(names: Sequence[str], read: Callable[[str], bytes]) -> list[Candidate]:
    """Candidates for the files `names`, in their order, with the captions of the sidecars among them.

    A sidecar is a metadata.csv, or a .txt file with the name of an image beside it; it is no candidate itself. Of both
    the .txt file is the nearer one.
    """
    tables = [name for name in names if PurePosixPath(name).name == METADATA]
    images = {name for name in names if not name.endswith(".txt")} - set(tables)
    texts = {str(PurePosixPath(name).with_suffix("")): name for name in names if name.endswith(".txt")}
    texts = {stem: texts[stem] for name in images if (stem := str(PurePosixPath(name).with_suffix(""))) in texts}
    sidecars = {*tables, *texts.values()}
    contents: dict[str, bytes] = {}
    # At once, because a bucket may hold a text beside each of very many images.
    for_each(lambda name: contents.update({name: read(name)}), sorted(sidecars), "reading captions")
    captions: dict[str, str] = {}
    for table in tables:
        captions |= captions_of(contents[table], PurePosixPath(table).parent)
    candidates: list[Candidate] = []
    for name in names:
        if name in sidecars:
            continue
        text = texts.get(str(PurePosixPath(name).with_suffix("")))
        told = contents[text].decode("utf-8-sig", errors="replace").strip() if text else captions.get(name)
        candidates.append(Candidate(len(candidates), name, caption=told or None))
    return candidates


def captions_of(table: bytes, folder: PurePosixPath) -> Mapping[str, str]:
    """Name of a file → its caption, from a metadata.csv in `folder`; empty, with a warning, when it has no such columns."""
    rows = csv.DictReader(io.StringIO(table.decode("utf-8-sig", errors="replace"), newline=""))
    try:
        columns = rows.fieldnames or []
        column = next((name for name in CAPTION_COLUMNS if name in columns), None)
        if column is None or "file_name" not in columns:
            log.warning("metadata.csv has no captions", folder=str(folder), columns=list(columns))
            return {}
        return {str(folder / row["file_name"]): (row[column] or "").strip() for row in rows if row["file_name"]}
    except csv.Error as error:
        log.warning("metadata.csv cannot be read", folder=str(folder), error=str(error))
        return {}
