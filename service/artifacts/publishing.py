"""Folders to artifacts: nothing half-written is ever visible.

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

import json
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
)
from service.artifacts.stored import Stored, key_of, name_of
from service.exits import BadConfiguration, BadData, StorageUnreachable
from service.stopping import StopCheck, never_stop
from service.storage.interface import NotFound, ObjectStore
from service.storage.keys import checked_key
from service.storage.parallel import for_each

log = structlog.get_logger(__name__)


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
        Stored(store, path, manifest).compare_sizes()
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
        content = store.get(key_of(path, MANIFEST_NAME))
    except NotFound as error:
        raise NotFound(
            f"{name_of(store, path)} does not exist or is not finished: it has no {MANIFEST_NAME}"
        ) from error
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        where = f"{MANIFEST_NAME} of {name_of(store, path)}"
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
