"""Folders to artifacts and back: nothing is ever read half, and nothing half-written is ever visible.

How a folder is published under a path, so that it holds whatever dies, and however many write at once:

1. A manifest that is there already decides: it is ours, or we yield.
2. A writer claims the path: it puts an object named after its content, WRITER-<version>, and then lists the path. When it
   sees no other claim, its files go to <path>/<name>, where people look for them. When it sees one, another writer with other
   content may be at work there, or may have died there; then its files go to <path>/FILES-<version>/<name>, which is nobody
   else's. Of two writers whoever lists later sees both claims, so at most one content ever gets <path>/<name>. This needs no
   conditional writes, only listings that show what has been put, which S3 and its like all give.
3. The files are put, and a listing must show all of them with their sizes.
4. The manifest is put last, if there is none, and says where the files are. From here on the artifact exists.
5. The claim is deleted. Who claims after that finds the manifest when it lists, and yields.

So a manifest always stands for files that nobody overwrites with others, also on a store without conditional writes, where
of two manifests the later one may stay. What the writer that yields has put is swept by `retention`. A path that is the hash
of its content, or an attempt's own, comes to the same without a claim.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from pydantic import ValidationError

from service.artifacts.documents import WrittenByNewer, check_schema, first_complaint
from service.artifacts.manifest import (
    BESIDE,
    CLAIM,
    KNOWN_SCHEMA,
    MANIFEST_NAME,
    FileEntry,
    Manifest,
    describe,
    sha256_of,
)
from service.exits import BadConfiguration, BadData, StorageUnreachable
from service.storage.disk import disk_errors, one_at_a_time
from service.storage.interface import NotFound, ObjectStore
from service.storage.keys import TEMPORARY, checked_key
from service.storage.local import LocalStore
from service.storage.parallel import StopCheck, for_each, never_stop

log = structlog.get_logger(__name__)

READINGS = 3
"""How often something must be read wrong to be called damaged."""


@dataclass(frozen=True)
class Artifact:
    """A published folder: where it is in its store, and what is in it."""

    path: str
    manifest: Manifest


def publish(
    store: ObjectStore,
    folder: Path,
    *,
    kind: str,
    path: str,
    parents: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    kind_schema: int = 1,
) -> Artifact:
    """Stores the files of a folder and makes them visible at once, under `path`.

    When the same files are there already, nothing happens. Others that were made of the same parents with the same
    settings stay: they are another attempt's at the same thing. Any others are refused with BadConfiguration.
    """
    checked_key(path)
    manifest = describe(folder, kind=kind, parents=parents, settings=settings or {}, kind_schema=kind_schema)
    with suppress(NotFound):
        return _standing(store, path, manifest)
    claim = f"{CLAIM}{manifest.version}"
    store.put(f"{path}/{claim}", manifest.version.encode())
    seen = {entry.key.removeprefix(f"{path}/") for entry in store.list(f"{path}/")}
    if MANIFEST_NAME in seen:
        artifact = _standing(store, path, manifest)
    else:
        alone = not any(name.startswith(CLAIM) for name in seen - {claim})
        place = "" if alone else f"{BESIDE}{manifest.version}"
        artifact = _write(store, folder, path, manifest.model_copy(update={"folder": place}))
    store.delete(f"{path}/{claim}")
    return artifact


def publish_version(
    store: ObjectStore,
    folder: Path,
    *,
    kind: str,
    prefix: str,
    parents: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    kind_schema: int = 1,
    stop_check: StopCheck = never_stop,
) -> Artifact:
    """Publishes under `prefix/<version>`, where the version is the hash of the content.

    What `stop_check` raises leaves no artifact: without a manifest, the files stored until then are none.
    """
    manifest = describe(
        folder, kind=kind, parents=parents, settings=settings or {}, kind_schema=kind_schema, stop_check=stop_check
    )
    path = checked_key(f"{prefix.rstrip('/')}/{manifest.version}")
    with suppress(NotFound):
        return _standing(store, path, manifest)
    return _write(store, folder, path, manifest, stop_check)


def _write(
    store: ObjectStore, folder: Path, path: str, manifest: Manifest, stop_check: StopCheck = never_stop
) -> Artifact:
    """Puts the files, then the manifest. Returns what stands at the path in the end."""

    def put(file: FileEntry) -> None:
        store.put(f"{path}/{manifest.name_of(file)}", folder / file.path)

    for_each(put, manifest.files, f"publishing {path}", stop_check)
    try:
        _compare_sizes(store, path, manifest)
    except BadData as error:
        # Not the data's fault: the folder was changed or its files were deleted while they were published.
        raise StorageUnreachable(f"what was just written is not there as it should be: {error}") from error
    # Manifest last: a reader that finds it may trust every file it lists. Written first, a crash here would publish
    # holes. And only if absent: of two writers the first one's manifest stands, and the other one yields.
    if not store.put_if_absent(f"{path}/{MANIFEST_NAME}", manifest.to_bytes()):
        return _standing(store, path, manifest)
    log.info("published", path=path, kind=manifest.kind, version=manifest.version, files=len(manifest.files))
    return Artifact(path, manifest)


def _standing(store: ObjectStore, path: str, ours: Manifest) -> Artifact:
    """The artifact at the path, when we may yield to it."""
    stored = read_manifest(store, path)
    if stored.version == ours.version:
        return Artifact(path, stored)
    if ours.settings and (stored.kind, stored.parents, stored.settings) == (ours.kind, ours.parents, ours.settings):
        log.warning("another attempt's stays", path=path, kind=stored.kind, version=stored.version, ours=ours.version)
        return Artifact(path, stored)
    raise BadConfiguration(
        f"{path} in {store.uri} already holds the {stored.kind} {stored.version}, which differs from this "
        f"{ours.kind} {ours.version}; a published artifact never changes: choose another RUN_ID"
    )


def read_manifest(store: ObjectStore, path: str) -> Manifest:
    """The manifest of an artifact; `NotFound` when there is none or it is still being published."""
    try:
        content = store.get(_key(path, MANIFEST_NAME))
    except NotFound as error:
        raise NotFound(f"{_name(store, path)} does not exist or is not finished: it has no {MANIFEST_NAME}") from error
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        where = f"{MANIFEST_NAME} of {_name(store, path)}"
        with suppress(ValueError):
            check_schema(json.loads(content)["schema_version"], KNOWN_SCHEMA, where)
        raise BadData(f"{where} is not valid: {first_complaint(error)}") from error


def exists(store: ObjectStore, path: str) -> bool:
    """Whether a finished artifact is at `path`."""
    try:
        read_manifest(store, path)
    except NotFound:
        return False
    return True


def list_artifacts(store: ObjectStore, prefix: str) -> list[str]:
    """Paths of the finished artifacts at or below `prefix`, sorted; all of them for an empty prefix."""
    below = f"{prefix.rstrip('/')}/" if prefix else ""
    paths = (Path(entry.key) for entry in store.list(below))
    return sorted(
        "" if path.parent == Path() else path.parent.as_posix() for path in paths if path.name == MANIFEST_NAME
    )


def find_made(store: ObjectStore, path: str, same: Callable[[Mapping[str, Any]], bool]) -> str | None:
    """Where the artifact is that belongs at `path`: there, or beside it under a key that another version of this program made.

    `same` says of an artifact's settings whether they are those that are wanted. None when there is no such artifact.
    """
    if exists(store, path):
        return path
    for other in list_artifacts(store, path.rpartition("/")[0]):
        with suppress(NotFound, BadData, WrittenByNewer):  # deleted since the listing, or nothing that could be used
            if same(read_manifest(store, other).settings):
                return other
    return None


def verify(store: ObjectStore, path: str) -> Manifest:
    """Reads every byte of an artifact; BadData names the first file that is not what the manifest says."""
    manifest = read_manifest(store, path)
    if isinstance(store, LocalStore) and not manifest.folder:
        _verify_in_place(store, path, manifest)
        return manifest
    _compare_sizes(store, path, manifest)
    with tempfile.TemporaryDirectory(prefix="sdlora-verify-") as folder:

        def check(file: FileEntry) -> None:
            copy = Path(folder, hashlib.sha256(file.path.encode()).hexdigest())
            _download(store, path, manifest, file, copy)
            copy.unlink()

        for_each(check, manifest.files, f"verifying {path}")
    return manifest


def fetch(store: ObjectStore, path: str, work_dir: Path, stop_check: StopCheck = never_stop) -> Path:
    """A local folder with exactly the artifact's files, each verified. An empty path means the store's root.

    In a local store it is the artifact itself; from elsewhere, a copy below `work_dir` that later fetches reuse.
    It is for reading only.
    """
    manifest = read_manifest(store, path)
    if isinstance(store, LocalStore) and not manifest.folder:
        folder = _verify_in_place(store, path, manifest, stop_check)
        if not _strays(store, path, manifest):
            return folder
    target = work_dir / "fetched" / hashlib.sha256(_name(store, path).encode()).hexdigest()[:16] / manifest.version
    with disk_errors(target, "WORK_DIR"), one_at_a_time(target, stop_check):
        if not _reusable(store, path, manifest, target, stop_check):
            _compare_sizes(store, path, manifest)
            _fetch_copy(store, path, manifest, target, stop_check)
    return target


def _fetch_copy(store: ObjectStore, path: str, manifest: Manifest, target: Path, stop_check: StopCheck) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # Through a temporary folder: a fetch that is killed leaves nothing that looks complete.
    with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=target.parent) as scratch:
        copy = Path(scratch, "copy")

        def download(file: FileEntry) -> None:
            (copy / file.path).parent.mkdir(parents=True, exist_ok=True)
            _download(store, path, manifest, file, copy / file.path)

        for_each(download, manifest.files, f"fetching {path or store.uri}", stop_check)
        (copy / MANIFEST_NAME).write_bytes(manifest.to_bytes())
        if target.exists() and not _reusable(store, path, manifest, target):
            with suppress(FileNotFoundError):
                target.rename(Path(scratch, "damaged"))
        try:
            copy.rename(target)
        except OSError:
            # Another process of this machine was faster; its copy serves as well, if it is whole.
            if not _reusable(store, path, manifest, target):
                raise
    log.info("fetched", path=path, kind=manifest.kind, version=manifest.version, files=len(manifest.files))


def _reusable(
    store: ObjectStore, path: str, manifest: Manifest, folder: Path, stop_check: StopCheck = never_stop
) -> bool:
    if not folder.is_dir():
        return False
    try:
        _verify_folder(store, path, manifest, folder, stop_check)
    except BadData as error:
        log.warning("damaged_copy", folder=str(folder), reason=str(error))
        return False
    return True


def _verify_in_place(store: LocalStore, path: str, manifest: Manifest, stop_check: StopCheck = never_stop) -> Path:
    folder = store.path(path) if path else store.root
    with disk_errors(folder, "ARTIFACTS_URI"):
        _verify_folder(store, path, manifest, folder, stop_check)
    return folder


def _verify_folder(store: ObjectStore, path: str, manifest: Manifest, folder: Path, stop_check: StopCheck) -> None:
    def check(file: FileEntry) -> None:
        _check(store, path, file, folder / file.path)

    for_each(check, manifest.files, f"verifying {path}", stop_check)


def _download(store: ObjectStore, path: str, manifest: Manifest, file: FileEntry, target: Path) -> None:
    for remaining in reversed(range(READINGS)):
        try:
            store.download(_key(path, manifest.name_of(file)), target)
        except NotFound as error:
            raise _damaged(store, path, f"{file.path} is missing") from error
        try:
            with disk_errors(target, "WORK_DIR"):
                _check(store, path, file, target)
        except BadData as error:
            # Damaged on the way it is right at the next reading; only what is wrong each time is damaged in the store.
            if remaining == 0:
                raise
            log.warning("read again", reason=str(error))
        else:
            return


def _check(store: ObjectStore, path: str, file: FileEntry, copy: Path) -> None:
    if not copy.is_file():
        raise _damaged(store, path, f"{file.path} is missing")
    if (size := copy.stat().st_size) != file.size:
        raise _damaged(store, path, f"{file.path} has {size} bytes instead of {file.size}")
    if (sha256 := sha256_of(copy)) != file.sha256:
        raise _damaged(store, path, f"{file.path} has sha256 {sha256} instead of {file.sha256}")


def _compare_sizes(store: ObjectStore, path: str, manifest: Manifest) -> None:
    """Finds missing and cut-off files by one listing, before gigabytes are downloaded for nothing."""
    sizes = {entry.key: entry.size for entry in store.list(_key(path, ""))}
    for file in manifest.files:
        size = sizes.get(_key(path, manifest.name_of(file)))
        if size is None:
            raise _damaged(store, path, f"{file.path} is missing")
        if size != file.size:
            raise _damaged(store, path, f"{file.path} has {size} bytes instead of {file.size}")


def _strays(store: LocalStore, path: str, manifest: Manifest) -> bool:
    """Whether the folder holds more than the artifact, left by a writer that was killed; readers must not see it."""
    known = {_key(path, file.path) for file in manifest.files} | {_key(path, MANIFEST_NAME)}
    return any(entry.key not in known for entry in store.list(_key(path, "")))


def _key(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _name(store: ObjectStore, path: str) -> str:
    return f"{store.uri}/{path}" if path else store.uri


def _damaged(store: ObjectStore, path: str, what: str) -> BadData:
    return BadData(
        f"artifact {_name(store, path)} is damaged: {what}; "
        f"delete its {MANIFEST_NAME} and run the job that made it again"
    )
