"""The two sources of URLs: searches, and lists."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cached_property
from itertools import chain, zip_longest
from pathlib import Path

from service.dataset.candidates import Candidate
from service.dataset.notes import Note
from service.dataset.sources.bing import search
from service.dataset.sources.fetching import open_fetcher
from service.dataset.sources.interface import Captioned, Read
from service.dataset.sources.url_list import candidates_of, digest
from service.settings.data_prep import DataPrepSettings
from service.storage.opening import read_file_at


class _WebSource:
    """What both have in common: our fetcher reads them."""

    parents: list[str] = []  # noqa: RUF012 - nobody writes to it

    def __init__(self, settings: DataPrepSettings, place: str) -> None:
        self._settings = settings
        self.place = place

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Read]:
        async with open_fetcher(self._settings) as fetcher:

            async def read(candidate: Candidate) -> bytes | Path:
                return await fetcher.fetch(candidate.origin)

            yield read


class BingSource(_WebSource):
    """One or several searches."""

    def __init__(self, settings: DataPrepSettings) -> None:
        super().__init__(settings, f"DATA_PREP_QUERY={', '.join(settings.query)}")

    def state(self) -> str:
        return ""

    def notes(self) -> Counter[Note]:
        return Counter()

    def candidates(self) -> list[Candidate]:
        """Raises StorageUnreachable when Bing is silent."""
        settings = self._settings
        return _interleaved(
            [
                search(query, licence=settings.licence, most=settings.max_candidates, timeout=settings.fetch_timeout)
                for query in settings.query
            ]
        )


class UrlSource(_WebSource):
    """A list of URLs: a CSV, JSON lines or Parquet file."""

    def __init__(self, settings: DataPrepSettings) -> None:
        super().__init__(settings, f"DATA_PREP_URLS={settings.urls}")
        self._content = read_file_at(settings.urls or "", "DATA_PREP_URLS")

    def state(self) -> str:
        return digest(self._content)

    def candidates(self) -> list[Candidate]:
        return self._captioned.candidates

    def notes(self) -> Counter[Note]:
        return self._captioned.notes

    @cached_property
    def _captioned(self) -> Captioned:
        return candidates_of(self._content, self.place)


def _interleaved(lists: Sequence[Sequence[Candidate]]) -> list[Candidate]:
    """The first of each list, then the second of each, and so on, ranked anew: a limit then takes from every query alike."""
    taken = [candidate for candidate in chain.from_iterable(zip_longest(*lists)) if candidate is not None]
    return [replace(candidate, rank=rank) for rank, candidate in enumerate(taken)]
