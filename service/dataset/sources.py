"""Where candidates come from: a folder, an S3 prefix, a published artifact, the sample images, or Bing."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from service import miniature
from service.artifacts.disk import disk_errors
from service.artifacts.publishing import fetch
from service.artifacts.stores import NotFound, ObjectStore, StoredObject, open_store
from service.dataset.bing import search
from service.dataset.candidates import Candidate, Collection, Reason, Rejection
from service.dataset.fetching import Fetcher
from service.exits import MissingInput
from service.settings.common import MINIATURE
from service.settings.data_prep import DataPrepSettings


def collect(settings: DataPrepSettings, store: ObjectStore) -> Collection:
    """The candidates that the settings name.

    Raises MissingInput for a folder, prefix or artifact that does not exist, and StorageUnreachable when Bing is silent.
    """
    if settings.source == "bing":
        fetcher = Fetcher(settings.fetch_timeout, settings.fetch_max_bytes)
        return Collection(search(settings.query, settings.limit, fetcher, settings.fetch_timeout), [])
    folder = settings.folder or ""
    if folder == MINIATURE:
        return Collection(local_files(miniature.SAMPLES, []), [])
    if folder.startswith("s3://"):
        return Collection(stored_objects(open_store(folder), settings.fetch_max_bytes), [])
    if (local := Path(folder).expanduser()).is_dir():
        return Collection(local_files(local, own_folders(settings)), [])
    return Collection(local_files(published(store, folder, settings.work_dir), []), [folder.rstrip("/")])


def local_files(folder: Path, own: Sequence[Path]) -> list[Candidate]:
    """Every file below `folder`, sorted by its name inside it; the folders `own` inside are passed over."""
    with disk_errors(folder, "DATA_PREP_FOLDER"):
        names = sorted(file.relative_to(folder).as_posix() for file in files_below(folder, own))
    return [Candidate(name, partial(Path, folder, name)) for name in names]


def files_below(folder: Path, own: Sequence[Path]) -> list[Path]:
    def fail(error: OSError) -> None:
        raise error  # a folder that cannot be read must not look like an empty one

    found = []
    for parent, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if Path(parent, name).resolve() not in own]
        # is_file: to open a pipe would wait for ever.
        found += [file for name in names if (file := Path(parent, name)).is_file()]
    return found


def own_folders(settings: DataPrepSettings) -> list[Path]:
    """Folders of the service itself, which may lie inside the user's: what it has published is no new candidate."""
    places = [settings.work_dir]
    if not settings.artifacts_uri.startswith("s3://"):
        places.append(Path(settings.artifacts_uri))
    return [place.expanduser().resolve() for place in places]


def stored_objects(store: ObjectStore, max_bytes: int) -> list[Candidate]:
    """Every object below an S3 prefix, sorted by its key there. Objects of more than `max_bytes` are not downloaded."""
    objects = sorted(store.list(""))
    if not objects:
        raise MissingInput(f"DATA_PREP_FOLDER={store.uri} holds no object; check the bucket and the prefix")
    return [Candidate(stored.key, partial(download, store, stored, max_bytes)) for stored in objects]


def download(store: ObjectStore, stored: StoredObject, max_bytes: int) -> bytes:
    if stored.size > max_bytes:
        raise Rejection(Reason.TOO_LARGE_BYTES, f"{stored.size} bytes")
    return store.get(stored.key)


def published(store: ObjectStore, path: str, work_dir: Path) -> Path:
    """The verified folder of an artifact."""
    missing = (
        f"DATA_PREP_FOLDER={path} does not exist: it is no folder here, and no published artifact below {store.uri}"
    )
    if path.startswith(("/", ".", "~")):
        raise MissingInput(missing)
    try:
        return fetch(store, path.rstrip("/"), work_dir)
    except NotFound as error:
        raise MissingInput(missing) from error
