"""Links of images from Bing's index: bing_image_downloader reads the index, and nothing of it touches an image."""

import contextlib
import html
import http.client
import io
import json
import re
import time
import urllib.error
import urllib.request
import urllib.response
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import structlog
from bing_image_downloader.bing import Bing
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from service import stopping
from service.dataset.candidates import Candidate
from service.exits import StorageUnreachable

PAGE = 50
ATTEMPTS = 3
MOST_BYTES = 5_000_000
"""Of an index page, which has some 200 KB; more is no index."""
PIECE = 64 * 1024
ENTRY = re.compile(r'\bm="(\{[^"]*\})"')  # quotes inside are &quot;: an entry that is cut off swallows no other
# Bing's names for the licences of its own filter.
LICENCES = {
    "public_domain": "L1",
    "share": "L2_L3_L4_L5_L6_L7",
    "share_commercially": "L2_L3_L4",
    "modify": "L2_L3_L5_L6",
    "modify_commercially": "L2_L3",
}
UNANSWERED = (OSError, http.client.HTTPException)

log = structlog.get_logger(__name__)


class _Pages(urllib.request.BaseHandler):
    """Passes index pages on to the library, which reads them without end, and keeps what it drops: the pages of images."""

    def __init__(self, seconds: float) -> None:
        self.pages_of_images: dict[str, str] = {}
        self._seconds = seconds

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:
        if response.status != 200:
            return response
        # One byte that is no UTF-8 would cost the library, and so the search, all links of the page.
        page = self._body(response).decode(errors="replace")
        self.pages_of_images |= _pages_of_images(page)
        passed = urllib.response.addinfourl(
            io.BytesIO(page.encode()), response.headers, request.full_url, response.status
        )
        passed.msg = response.msg  # type: ignore[attr-defined] # the next handlers ask for it
        return passed

    https_response = http_response

    def _body(self, response: Any) -> bytes:
        """Raises TimeoutError when a page is too long in coming, or too long."""
        end = time.monotonic() + self._seconds
        body = bytearray()
        with response:
            while piece := response.read1(PIECE):
                body += piece
                if len(body) > MOST_BYTES or time.monotonic() > end:
                    raise TimeoutError(f"an index page of more than {MOST_BYTES} bytes or {self._seconds:g} s")
        return bytes(body)


def _pages_of_images(page: str) -> dict[str, str]:
    """URL of an image → URL of the page that shows it, from an index page. What is malformed is left out."""
    found = {}
    for entry in ENTRY.findall(page):
        try:
            facts = json.loads(html.unescape(entry))
        except ValueError:
            continue
        if isinstance(facts, dict) and isinstance(facts.get("murl"), str) and isinstance(facts.get("purl"), str):
            found[facts["murl"].replace(" ", "%20")] = facts["purl"]
    return found


class _Index(Bing):
    """The library's own loop over the index pages, with links collected where it would download them.

    It asks for the pages that begin at 0, 1, 2, …, which overlap almost wholly, and stops at the first page without a
    success. Here the next page begins after the links seen, and the end is a page without a new link.
    """

    def __init__(self, query: str, licence: str, timeout: float) -> None:
        self.found: list[str] = []
        self._licence = licence
        super().__init__(
            query=query, limit=PAGE, output_dir=Path(), adult="on", timeout=max(1, round(timeout)), verbose=False
        )

    def get_filter(self, shorthand: str) -> str:
        """What the library sends as `qft`."""
        return (
            f"+filterui:license-{LICENCES[self._licence]}"
            if self._licence in LICENCES
            else super().get_filter(shorthand)
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
        """Lists of new links, PAGE of them but for the last. Raises one of UNANSWERED when Bing does not answer."""
        more = True
        while more:
            self.found, self.download_count = [], 0
            attempts = Retrying(
                retry=retry_if_exception_type(UNANSWERED),
                wait=wait_exponential_jitter(multiplier=0.5, max=5),
                stop=stop_after_attempt(ATTEMPTS),
                reraise=True,
            )
            # The library prints; events are the only output of a job. A repeated run goes on where the failed one was.
            with contextlib.redirect_stdout(io.StringIO()):
                attempts(self.run)
            more = len(self.found) == PAGE
            yield self.found


def search(query: str, *, licence: str, most: int, timeout: float) -> list[Candidate]:
    """At most `most` candidates for `query` in Bing's order, with the page of each; ranks count from 0.

    `timeout`: seconds for an index page. Raises StorageUnreachable when the index does not answer at all; when it stops
    answering on the way, the links until then are what there is.
    """
    pages = _Pages(timeout)
    links: list[str] = []
    urllib.request.install_opener(urllib.request.build_opener(pages))
    try:
        for page in stopping.interruptible(_Index(query, licence, timeout).pages()):
            links += page
            log.debug("index page read", query=query, links=len(links))
            if len(links) >= most:
                break
    except UNANSWERED as error:
        if not links:
            raise StorageUnreachable(f"Bing's index does not answer for DATA_PREP_QUERY={query}: {error}") from error
        log.warning("index stopped answering", query=query, links=len(links), error=str(error))
    finally:
        urllib.request.install_opener(None)  # urllib makes its own again
    known = None if licence == "any" else f"Bing's filter: {licence}"
    return [
        Candidate(rank, link, pages.pages_of_images.get(link), query, known) for rank, link in enumerate(links[:most])
    ]
