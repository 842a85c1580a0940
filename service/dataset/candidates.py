"""What may become an image of the data set, and the closed set of reasons why it does not."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Reason(StrEnum):
    """Why a candidate was left out. Provenance, logs and errors use these words and no others."""

    HTTP_STATUS = "http_status"
    TIMEOUT = "timeout"
    DNS = "dns"
    CONNECTION = "connection"
    BLOCKED_ADDRESS = "blocked_address"
    TOO_MANY_REDIRECTS = "too_many_redirects"
    TOO_LARGE_BYTES = "too_large_bytes"
    ROBOTS_NOAI = "robots_noai"
    NOT_IMAGE = "not_image"
    FORMAT_NOT_ALLOWED = "format_not_allowed"
    TRUNCATED = "truncated"
    DECOMPRESSION_BOMB = "decompression_bomb"
    TOO_SMALL = "too_small"
    DUP_EXACT = "dup_exact"
    CAPTION_FAILED = "caption_failed"
    LIMIT_REACHED = "limit_reached"


class Rejection(Exception):
    """One candidate cannot be used, which is no failure of the job."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Candidate:
    """`origin` is a URL, or the name inside its folder; `read` gives the bytes or a local file, or raises Rejection."""

    origin: str
    read: Callable[[], bytes | Path]


@dataclass(frozen=True)
class Collection:
    """The candidates in their order, and the published artifacts that they came from.

    A sequence of candidates is known in whole, so what the limit leaves out is recorded. An iterator is asked for no
    more than the job needs, because every further candidate costs requests.
    """

    candidates: Iterable[Candidate]
    parents: list[str]


@dataclass(frozen=True)
class Record:
    """What became of a candidate.

    `sha256` is that of the decoded pixels with their size; `width` and `height` are in pixels. All three are None for
    what was never decoded. `image` is the canonical PNG of an accepted candidate, None for a rejected one.
    """

    origin: str
    reason: Reason | None
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    image: Path | None = None
