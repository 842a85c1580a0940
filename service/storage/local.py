"""Artifacts in a folder: a laptop's disk or a mounted volume."""

import errno
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import BinaryIO

from service.storage.disk import disk_errors, sync_folder
from service.storage.interface import NotFound, StoredObject, Unfinished
from service.storage.keys import TEMPORARY, checked_key

ABSENT = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
TRIES = 5
NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}


class LocalStore:
    """An `ObjectStore` whose keys are the files of a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self.uri = str(self.root)

    def path(self, key: str) -> Path:
        """The file of a key."""
        return self.root / checked_key(key)

    def folder(self, path: str) -> Path:
        """The folder of all keys below `path`; of the whole store for an empty path."""
        return self.path(path) if path else self.root

    def put(self, key: str, data: bytes | Path) -> None:
        """Through a temporary file beside it, flushed to the disk and renamed."""
        target = self.path(key)
        with disk_errors(target, "ARTIFACTS_URI"), self._written(target, data) as temporary:
            os.replace(temporary, target)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """By a hard link, which fails where something is; without links as on a server without conditional writes."""
        target = self.path(key)
        with disk_errors(target, "ARTIFACTS_URI"), self._written(target, data) as temporary:
            try:
                os.link(temporary, target)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in NO_HARD_LINKS:
                    raise
                # Volumes on FAT, SMB or FUSE may have no links. There the same promise as on S3 without conditions.
                if target.exists():
                    return False
                os.replace(temporary, target)
                return target.read_bytes() == data
        return True

    def honours_conditions(self) -> bool:
        """Whether the volume has hard links; tried with a temporary one."""
        probe = self.root / f"{TEMPORARY}{uuid.uuid4().hex}"
        with disk_errors(probe, "ARTIFACTS_URI"), self._written(probe, b"") as temporary:
            try:
                os.link(temporary, probe)
            except OSError as error:
                if error.errno not in NO_HARD_LINKS:
                    raise
                return False
            finally:
                probe.unlink(missing_ok=True)
        return True

    def get(self, key: str) -> bytes:
        """The file's content, or `NotFound`."""
        with self._opened(key) as source:
            return source.read()

    def download(self, key: str, target: Path) -> None:
        """Copies the file, or raises `NotFound`."""
        with self._opened(key) as source, disk_errors(target, "WORK_DIR"), target.open("wb") as sink:
            shutil.copyfileobj(source, sink)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """The files below, in the order of their names."""
        folder = self.root.joinpath(checked_key(prefix.rpartition("/")[0])) if "/" in prefix else self.root
        with disk_errors(folder, "ARTIFACTS_URI"):
            for file in _files_below(folder):
                key = file.relative_to(self.root).as_posix()
                if key.startswith(prefix) and not file.name.startswith(TEMPORARY):
                    try:
                        status = file.stat()
                    except FileNotFoundError:
                        continue  # deleted since the folder was read, so it is not there
                    yield StoredObject(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))

    def delete(self, key: str) -> None:
        """Removes the file, and the folders that it leaves empty."""
        target = self.path(key)
        with disk_errors(target, "ARTIFACTS_URI"):
            try:
                target.unlink()
                sync_folder(target.parent)
            except ABSENT:
                return
            # An artifact that is gone leaves no empty folders, which people would take for one.
            for folder in target.parents[: len(target.relative_to(self.root).parts) - 1]:
                try:
                    folder.rmdir()
                except OSError:
                    return  # not empty, or gone already

    def unfinished(self, before: datetime) -> Iterator[Unfinished]:
        """Temporary files that nobody has written to since `before`."""
        with disk_errors(self.root, "ARTIFACTS_URI"):
            for file in _files_below(self.root):
                with suppress(FileNotFoundError):
                    status = file.stat()
                    touched = datetime.fromtimestamp(status.st_mtime, UTC)
                    if file.name.startswith(TEMPORARY) and touched < before:
                        name = file.relative_to(self.root).as_posix()
                        yield Unfinished(name, name, touched, status.st_size)

    def discard(self, write: Unfinished) -> None:
        """Removes the temporary file."""
        with disk_errors(self.root, "ARTIFACTS_URI"):
            self.root.joinpath(write.name).unlink(missing_ok=True)

    @contextmanager
    def _opened(self, key: str) -> Iterator[BinaryIO]:
        path = self.path(key)
        with disk_errors(path, "ARTIFACTS_URI"):
            try:
                source = path.open("rb")
            except ABSENT as error:
                raise NotFound(f"{path} does not exist") from error
            with source:
                yield source

    @contextmanager
    def _written(self, target: Path, data: bytes | Path) -> Iterator[Path]:
        """A complete, durable temporary file beside `target`, for the block to move into place."""
        descriptor, temporary = _new_file_in(target.parent)
        try:
            with open(descriptor, "wb") as sink:
                # mkstemp gives 0600; the next job may run as another user of the same volume.
                os.fchmod(sink.fileno(), 0o666 & ~_umask())
                if isinstance(data, Path):
                    with data.open("rb") as source:
                        shutil.copyfileobj(source, sink, 1 << 20)
                else:
                    sink.write(data)
                sink.flush()
                os.fsync(sink.fileno())
            yield temporary
            sync_folder(target.parent)
        finally:
            temporary.unlink(missing_ok=True)


def _files_below(folder: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        # A folder that cannot be read must not look like an empty one; one that vanished, or never was, is empty.
        if not isinstance(error, ABSENT):
            raise error

    for parent, folders, names in os.walk(folder, onerror=fail):
        folders.sort()
        for name in sorted(names):
            yield Path(parent, name)


def _new_file_in(folder: Path) -> tuple[int, Path]:
    """A temporary file, open for writing, in a folder that is made if need be."""
    for remaining in reversed(range(TRIES)):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor, name = tempfile.mkstemp(prefix=TEMPORARY, dir=folder)
        except FileNotFoundError:
            # Somebody deleted the last object of the folder, and with it the folder, at this very moment.
            if remaining == 0:
                raise
        else:
            return descriptor, Path(name)
    raise AssertionError("unreachable")


@cache
def _umask() -> int:
    """The process's umask. Linux tells it without changing it, which would race with other threads."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o022
