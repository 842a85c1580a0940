"""What may become an image of the data set, and the closed set of reasons why it does not."""

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why a candidate was left out. Provenance, report, logs and errors use these words and no others."""

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
    ASPECT_RATIO = "aspect_ratio"
    LOW_ENTROPY = "low_entropy"
    TOO_DARK = "too_dark"
    IRRELEVANT = "irrelevant"
    DUP_URL = "dup_url"
    DUP_EXACT = "dup_exact"
    DUP_NEAR = "dup_near"
    EXCLUDED = "excluded"
    CAPTION_FAILED = "caption_failed"
    LIMIT_REACHED = "limit_reached"


class Rejection(Exception):
    """One candidate cannot be used, which is no failure of the job."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail


class Transient(Rejection):
    """A failure that another attempt may not meet."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image that a source knows of.

    `rank` is its place in the list of candidates, from 0. `origin` is its URL, or its name inside its folder; `page` the
    URL of the page that shows it; `query` the search that found it; `caption` what its owner says about it.
    """

    rank: int
    origin: str
    page: str | None = None
    query: str | None = None
    licence: str | None = None
    caption: str | None = None


@dataclass(frozen=True, slots=True)
class Features:
    """What is known of a decoded image.

    `sha256` is that of the canonical image's pixels with their size, `source_sha256` that of the file as it came; `width` and
    `height` are its size in pixels, `source_width` and `source_height` the size in which it came. `phash` and `dhash` are
    64-bit perceptual hashes, `colour` is the mean as 0xRRGGBB.
    `relevance` is 100 · cos(image, query), None where nobody asked. `lossless`: no encoder has changed its pixels.
    """

    sha256: str
    width: int
    height: int
    source_width: int
    source_height: int
    phash: int
    dhash: int
    colour: int
    animated: bool = False
    relevance: float | None = None
    lossless: bool = False
    source_sha256: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """What became of a candidate: accepted when there is no `reason`. Only what was decoded has `features`.

    `kept` is the origin of the image that stands for a duplicate.
    """

    candidate: Candidate
    reason: Reason | None = None
    detail: str = ""
    features: Features | None = None
    kept: str | None = None

    @property
    def sha256(self) -> str:
        """That of an image that was decoded; to ask it of another record is a mistake."""
        assert self.features is not None, f"{self.candidate.origin} was never decoded"
        return self.features.sha256
