"""Links of images from Bing's index: bing_image_downloader reads the index, and nothing of it touches an image."""

import contextlib
import http.client
import io
import urllib.error
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import structlog
from bing_image_downloader.bing import Bing
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from service.dataset.candidates import Candidate
from service.dataset.fetching import Fetcher
from service.exits import StorageUnreachable

PAGE = 50
ATTEMPTS = 3
LINKS_PER_IMAGE = 10
"""Links looked at for each image that is wanted; a search whose links are mostly dead ends here, not never."""

log = structlog.get_logger(__name__)


class Index(Bing):
    """The library's own loop over the index pages, with links collected where it would download them.

    It asks for the pages that begin at 0, 1, 2, …, which overlap almost wholly, and stops at the first page without a
    success. Here the next page begins after the links seen, and the end is a page without a new link.
    """

    def __init__(self, query: str, timeout: float) -> None:
        self.found: list[str] = []
        super().__init__(
            query=query, limit=PAGE, output_dir=Path(), adult="on", timeout=max(1, round(timeout)), verbose=False
        )

    @property
    def page_counter(self) -> int:
        """What the library sends as `first`, the place in the results where the page begins."""
        return len(self.seen)

    @page_counter.setter
    def page_counter(self, value: int) -> None:
        """The library counts pages here; the links seen are counted instead."""

    def download_image(self, link: str) -> None:
        self.download_count += 1
        self.found.append(link)

    def run(self) -> None:
        try:
            super().run()
        except urllib.error.HTTPError as error:
            error.close()  # it holds the connection, which the library does not let go
            raise

    def pages(self) -> Iterator[list[str]]:
        """Lists of new links, PAGE of them but for the last. Raises what urllib raises when Bing does not answer."""
        more = True
        while more:
            self.found, self.download_count = [], 0
            attempts = Retrying(
                retry=retry_if_exception_type((OSError, http.client.HTTPException)),
                wait=wait_exponential_jitter(multiplier=0.5, max=5),
                stop=stop_after_attempt(ATTEMPTS),
                reraise=True,
            )
            # The library prints; events are the only output of a job. A repeated run goes on where the failed one was.
            with contextlib.redirect_stdout(io.StringIO()):
                attempts(self.run)
            more = len(self.found) == PAGE
            yield self.found


def search(query: str, limit: int, fetcher: Fetcher, timeout: float) -> Iterator[Candidate]:
    """Candidates for `query` in Bing's order, read from the index as they are asked for.

    `limit` is the number of images wanted, `timeout` the seconds for an index page. Raises StorageUnreachable when the
    index does not answer at all; when it stops answering on the way, the links until then are what there is.
    """
    links = 0
    try:
        for page in Index(query, timeout).pages():
            log.info("index page read", links=len(page))
            for link in page:
                links += 1
                yield Candidate(link, partial(fetcher.fetch, link))
            if links >= limit * LINKS_PER_IMAGE:
                log.warning("search given up", links=links, wanted=limit)
                return
    except (OSError, http.client.HTTPException) as error:
        if not links:
            raise StorageUnreachable(f"Bing's index does not answer for DATA_PREP_QUERY={query}: {error}") from error
        log.warning("index stopped answering", links=links, error=str(error))
