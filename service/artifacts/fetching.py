"""Artifacts to local folders, each file verified against the manifest: nothing is ever read half."""

import hashlib
import tempfile
from contextlib import suppress
from pathlib import Path

import structlog

from service.artifacts.manifest import MANIFEST_NAME, FileEntry, Manifest
from service.artifacts.publishing import read_manifest
from service.artifacts.stored import Stored, key_of
from service.exits import BadData
from service.stopping import StopCheck, never_stop
from service.storage.disk import disk_errors, one_at_a_time
from service.storage.interface import KeepsFolders, NotFound, ObjectStore
from service.storage.keys import TEMPORARY
from service.storage.parallel import for_each

log = structlog.get_logger(__name__)

READINGS = 3
"""How often something must be read wrong to be called damaged."""


def verify(store: ObjectStore, path: str) -> Manifest:
    """Reads every byte of an artifact; BadData names the first file that is not what the manifest says."""
    stored = Stored(store, path, read_manifest(store, path))
    if _verified_in_place(stored, never_stop) is not None:
        return stored.manifest
    stored.compare_sizes()
    with tempfile.TemporaryDirectory(prefix="sdlora-verify-") as folder:

        def check(file: FileEntry) -> None:
            copy = Path(folder, hashlib.sha256(file.path.encode()).hexdigest())
            _download(stored, file, copy)
            copy.unlink()

        for_each(check, stored.manifest.files, f"verifying {path}")
    return stored.manifest


def fetch(store: ObjectStore, path: str, work_dir: Path, stop_check: StopCheck = never_stop) -> Path:
    """A local folder with exactly the artifact's files, each verified. An empty path means the store's root.

    In a local store it is the artifact itself; from elsewhere, a copy below `work_dir` that later fetches reuse.
    It is for reading only. Raises NotFound without a manifest, BadData for a file that is not what it says.
    """
    stored = Stored(store, path, read_manifest(store, path))
    folder = _verified_in_place(stored, stop_check)
    if folder is not None and not _has_strays(stored):
        return folder
    version = stored.manifest.version
    target = work_dir / "fetched" / hashlib.sha256(stored.name.encode()).hexdigest()[:16] / version
    with disk_errors(target, "WORK_DIR"), one_at_a_time(target, stop_check):
        if not _is_whole(stored, target, stop_check):
            stored.compare_sizes()
            _fetch_copy(stored, target, stop_check)
    return target


def read_file(store: ObjectStore, path: str, name: str) -> bytes:
    """The content of one file of an artifact, verified, without the others.

    Raises NotFound without a manifest, BadData for a file that is not listed or not what the manifest says.
    """
    stored = Stored(store, path, read_manifest(store, path))
    file = next((file for file in stored.manifest.files if file.path == name), None)
    if file is None:
        raise BadData(f"the {stored.manifest.kind} {stored.name} has no file {name}")
    with tempfile.TemporaryDirectory(prefix="sdlora-read-") as folder:
        copy = Path(folder, "copy")
        _download(stored, file, copy)
        return copy.read_bytes()


def _verified_in_place(stored: Stored, stop_check: StopCheck) -> Path | None:
    """The artifact's own folder, verified, where the store keeps it as one; else None."""
    if not isinstance(stored.store, KeepsFolders) or stored.manifest.folder:
        return None
    folder = stored.store.folder(stored.path)
    with disk_errors(folder, "ARTIFACTS_URI"):
        stored.check_folder(folder, stop_check)
    return folder


def _has_strays(stored: Stored) -> bool:
    """Whether the folder holds more than the artifact, left by a writer that was killed; readers must not see it."""
    known = {stored.key(file) for file in stored.manifest.files} | {key_of(stored.path, MANIFEST_NAME)}
    return any(entry.key not in known for entry in stored.store.list(key_of(stored.path, "")))


def _fetch_copy(stored: Stored, target: Path, stop_check: StopCheck) -> None:
    manifest = stored.manifest
    target.parent.mkdir(parents=True, exist_ok=True)
    # Through a temporary folder: a fetch that is killed leaves nothing that looks complete.
    with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=target.parent) as scratch:
        copy = Path(scratch, "copy")

        def download(file: FileEntry) -> None:
            (copy / file.path).parent.mkdir(parents=True, exist_ok=True)
            _download(stored, file, copy / file.path)

        for_each(download, manifest.files, f"fetching {stored.path or stored.store.uri}", stop_check)
        (copy / MANIFEST_NAME).write_bytes(manifest.to_bytes())
        if target.exists() and not _is_whole(stored, target, never_stop):
            with suppress(FileNotFoundError):
                target.rename(Path(scratch, "damaged"))
        try:
            copy.rename(target)
        except OSError:
            # Another process of this machine was faster; its copy serves as well, if it is whole.
            if not _is_whole(stored, target, never_stop):
                raise
    log.info("fetched", path=stored.path, kind=manifest.kind, version=manifest.version, files=len(manifest.files))


def _is_whole(stored: Stored, folder: Path, stop_check: StopCheck) -> bool:
    """Whether a copy is there and can be used again."""
    if not folder.is_dir():
        return False
    try:
        stored.check_folder(folder, stop_check)
    except BadData as error:
        log.warning("damaged_copy", folder=str(folder), reason=str(error))
        return False
    return True


def _download(stored: Stored, file: FileEntry, target: Path) -> None:
    for remaining in reversed(range(READINGS)):
        try:
            stored.store.download(stored.key(file), target)
        except NotFound as error:
            raise stored.damaged(f"{file.path} is missing") from error
        try:
            with disk_errors(target, "WORK_DIR"):
                stored.check(file, target)
        except BadData as error:
            # Damaged on the way it is right at the next reading; only what is wrong each time is damaged in the store.
            if remaining == 0:
                raise
            log.warning("read again", reason=str(error))
        else:
            return
