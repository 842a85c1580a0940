"""Records for tests: what became of candidates, without any image behind them."""

from service.dataset.candidates import Candidate, Features, Reason, Record


def features_of(
    sha256: str, size: tuple[int, int] = (64, 64), *, look: int = 0, relevance: float | None = None
) -> Features:
    """`look` is both of the image's perceptual hashes."""
    width, height = size
    return Features(
        sha256=sha256,
        width=width,
        height=height,
        source_width=width,
        source_height=height,
        phash=look,
        dhash=look,
        colour=0,
        relevance=relevance,
    )


def record(
    rank: int,
    origin: str = "a.png",
    reason: Reason | None = None,
    size: tuple[int, int] = (64, 64),
    *,
    caption: str | None = None,
) -> Record:
    """A candidate that was decoded; its sha256 is its rank."""
    return Record(Candidate(rank, origin, caption=caption), reason, "", features_of(f"{rank:064x}", size))
