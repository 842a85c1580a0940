"""Opens the source that the settings name: Bing, a list of URLs, a folder, a bucket, a published artifact, or the samples."""

from pathlib import Path

from service import miniature, stopping
from service.artifacts.fetching import fetch
from service.dataset.sources.folders import BucketSource, FolderSource
from service.dataset.sources.interface import Source
from service.dataset.sources.web import BingSource, UrlSource
from service.exits import MissingInput
from service.settings.data_prep import DataPrepSettings
from service.settings.models import MINIATURE
from service.storage.interface import NotFound, ObjectStore
from service.storage.opening import open_store


def open_source(settings: DataPrepSettings, store: ObjectStore) -> Source:
    """Raises MissingInput for a folder, file, prefix or artifact that does not exist."""
    if settings.source == "bing":
        return BingSource(settings)
    if settings.source == "urls":
        return UrlSource(settings)
    folder = settings.folder or ""
    if folder == MINIATURE:
        return FolderSource(miniature.SAMPLES, folder)
    if folder.startswith("s3://"):
        return BucketSource(open_store(folder), settings.fetch_max_bytes)
    if (local := Path(folder).expanduser()).is_dir():
        return FolderSource(local, folder, own=_own_folders(settings))
    artifact = _published(store, folder, settings.work_dir)
    # Of a data set the images alone: its report and provenance are no candidates.
    images = artifact / "imagefolder"
    return FolderSource(images if images.is_dir() else artifact, folder, parents=[folder.rstrip("/")])


def _own_folders(settings: DataPrepSettings) -> list[Path]:
    """Folders of the service itself, which may lie inside the user's: what it has published is no new candidate."""
    places = [settings.work_dir]
    if not settings.artifacts_uri.startswith("s3://"):
        places.append(Path(settings.artifacts_uri))
    return [place.expanduser().resolve() for place in places]


def _published(store: ObjectStore, path: str, work_dir: Path) -> Path:
    """The verified folder of an artifact."""
    missing = (
        f"DATA_PREP_FOLDER={path} does not exist: it is no folder here, and no published artifact below {store.uri}"
    )
    if path.startswith(("/", ".", "~")):
        raise MissingInput(missing)
    try:
        return fetch(store, path.rstrip("/"), work_dir, stopping.check)
    except NotFound as error:
        raise MissingInput(missing) from error
