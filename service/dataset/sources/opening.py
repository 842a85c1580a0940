"""Where candidates come from: Bing, a list of URLs, a folder, a bucket, a published artifact, or the sample images."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from itertools import chain, zip_longest
from pathlib import Path
from typing import Protocol

from service import miniature, stopping
from service.artifacts.publishing import fetch
from service.dataset.candidates import Candidate
from service.dataset.sources.bing import search
from service.dataset.sources.fetching import open_fetcher
from service.dataset.sources.folders import BucketSource, FolderSource
from service.dataset.sources.url_list import candidates_of, digest, read_list
from service.exits import MissingInput
from service.settings.data_prep import DataPrepSettings
from service.settings.models import MINIATURE
from service.storage.interface import NotFound, ObjectStore
from service.storage.opening import open_store

Read = Callable[[Candidate], Awaitable[bytes | Path]]
"""The bytes of a candidate, or the local file that holds them. Raises Rejection."""


class Source(Protocol):
    """A place with images. `parents` are the published artifacts that they come from.

    `state` stands for the content now: it changes when the list of candidates does. It is empty for a search, which
    answers differently from one day to the next. `reading` lends the means to read candidates, for many at once.
    """

    parents: list[str]

    def state(self) -> str: ...

    def candidates(self) -> list[Candidate]: ...

    def reading(self) -> AbstractAsyncContextManager[Read]: ...


def open_source(settings: DataPrepSettings, store: ObjectStore) -> Source:
    """The source that the settings name; raises MissingInput for a folder, file, prefix or artifact that does not exist."""
    if settings.source == "bing":
        return BingSource(settings)
    if settings.source == "urls":
        return UrlSource(settings)
    folder = settings.folder or ""
    if folder == MINIATURE:
        return FolderSource(miniature.SAMPLES)
    if folder.startswith("s3://"):
        return BucketSource(open_store(folder), settings.fetch_max_bytes)
    if (local := Path(folder).expanduser()).is_dir():
        return FolderSource(local, own=own_folders(settings))
    artifact = published(store, folder, settings.work_dir)
    # Of a data set the images alone: its report and provenance are no candidates.
    images = artifact / "imagefolder"
    return FolderSource(images if images.is_dir() else artifact, parents=[folder.rstrip("/")])


class WebSource:
    """What the two sources of URLs have in common: our fetcher reads them."""

    parents: list[str] = []  # noqa: RUF012 - nobody writes to it

    def __init__(self, settings: DataPrepSettings) -> None:
        self._settings = settings

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Read]:
        async with open_fetcher(self._settings) as fetcher:

            async def read(candidate: Candidate) -> bytes | Path:
                return await fetcher.fetch(candidate.origin)

            yield read


class BingSource(WebSource):
    """One or several searches."""

    def state(self) -> str:
        return ""

    def candidates(self) -> list[Candidate]:
        """Raises StorageUnreachable when Bing is silent."""
        settings = self._settings
        most, timeout = settings.max_candidates, settings.fetch_timeout
        return interleaved([search(query, settings.licence, most, timeout) for query in settings.query])


class UrlSource(WebSource):
    """A CSV or Parquet file."""

    def __init__(self, settings: DataPrepSettings) -> None:
        super().__init__(settings)
        self._place = settings.urls or ""
        self._content = read_list(self._place)

    def state(self) -> str:
        return digest(self._content)

    def candidates(self) -> list[Candidate]:
        return candidates_of(self._content, self._place)


def interleaved(lists: Sequence[Sequence[Candidate]]) -> list[Candidate]:
    """The first of each list, then the second of each, and so on, ranked anew: a limit then takes from every query alike."""
    taken = [candidate for candidate in chain.from_iterable(zip_longest(*lists)) if candidate is not None]
    return [replace(candidate, rank=rank) for rank, candidate in enumerate(taken)]


def own_folders(settings: DataPrepSettings) -> list[Path]:
    """Folders of the service itself, which may lie inside the user's: what it has published is no new candidate."""
    places = [settings.work_dir]
    if not settings.artifacts_uri.startswith("s3://"):
        places.append(Path(settings.artifacts_uri))
    return [place.expanduser().resolve() for place in places]


def published(store: ObjectStore, path: str, work_dir: Path) -> Path:
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
