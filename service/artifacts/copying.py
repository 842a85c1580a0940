"""Artifacts from one store to another, file by file and manifest as they are."""

from pathlib import Path

from service.artifacts.fetching import fetch
from service.artifacts.manifest import MANIFEST_NAME
from service.artifacts.publishing import exists, read_manifest
from service.artifacts.stored import key_of
from service.storage.interface import ObjectStore
from service.storage.parallel import StopCheck, for_each


def copy_artifact(store: ObjectStore, path: str, target: ObjectStore, work_dir: Path, stop_check: StopCheck) -> None:
    """Makes the artifact at `path`, verified, appear under the same path of another store; does nothing where it is there.

    Raises NotFound without a manifest, BadData for a file that is not what it says.
    """
    if exists(target, path):
        return
    manifest = read_manifest(store, path)
    folder = fetch(store, path, work_dir, stop_check)
    for_each(
        lambda file: target.put(key_of(path, manifest.name_of(file)), folder / file.path),
        manifest.files,
        f"copying {path}",
        stop_check,
    )
    # Last, as ever: until then there is no artifact.
    target.put_if_absent(key_of(path, MANIFEST_NAME), manifest.to_bytes())
