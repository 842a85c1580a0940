"""A list of URLs in a CSV, JSON lines or Parquet file, as data sets of the web are passed around."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import structlog

from service.dataset.candidates import Candidate
from service.dataset.notes import Note
from service.dataset.selection import without_fragment
from service.dataset.sources.interface import Captioned
from service.dataset.sources.tables import CAPTION_COLUMNS, Reading, read_table
from service.exits import BadData
from service.settings.marks import URL

URL_COLUMNS = ("url",)
LICENCE_COLUMNS = ("licence", "license")
OTHER_COLUMNS = ("page", *LICENCE_COLUMNS)

log = structlog.get_logger(__name__)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def candidates_of(content: bytes, name: str) -> Captioned:
    """A candidate for each row with a URL, in the order of the file; `name` is for messages.

    Raises BadData for a file that is no table, that has no column `url`, or that cannot be meant as it stands.
    """
    reading = Reading(name, keys=URL_COLUMNS, texts=CAPTION_COLUMNS, others=OTHER_COLUMNS, is_key=_is_url)
    columns, rows = read_table(content, reading)
    if not set(URL_COLUMNS) & set(columns):
        raise BadData(f"{name} has no column `url`; it has {', '.join(columns) or 'none'}")
    # Of columns that mean the same the first counts.
    caption, licence = (
        next((one for one in columns if one in names), "") for names in (CAPTION_COLUMNS, LICENCE_COLUMNS)
    )
    candidates: list[Candidate] = []
    captions: dict[str, str] = {}
    notes: Counter[Note] = Counter()
    for _, cells in rows:
        if not (url := cells.get("url")):
            notes[Note.ROWS_WITHOUT_IMAGE] += 1
            continue
        if (text := cells.get(caption)) and captions.setdefault(without_fragment(url), text) != text:
            notes[Note.CAPTIONED_TWICE] += 1
        candidates.append(
            Candidate(
                len(candidates),
                url,
                page=cells.get("page") or None,
                licence=cells.get(licence) or None,
                caption=text or None,
            )
        )
    if notes:
        log.warning("captions were not read", **{str(note): count for note, count in notes.items()})
    return Captioned(_with_later_captions(candidates, captions), notes)


def _with_later_captions(candidates: Sequence[Candidate], captions: Mapping[str, str]) -> list[Candidate]:
    """The candidates; the first of its URL, which alone is looked at, has the caption of a later row where it has none."""
    seen: set[str] = set()
    found = []
    for candidate in candidates:
        url = without_fragment(candidate.origin)
        if url not in seen and candidate.caption is None:
            candidate = replace(candidate, caption=captions.get(url))
        seen.add(url)
        found.append(candidate)
    return found


def _is_url(cell: str) -> bool:
    return URL.fullmatch(cell) is not None
