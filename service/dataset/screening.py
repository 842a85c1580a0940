"""Candidates to canonical images, with a record of what became of each."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import structlog
from PIL import Image

from service.artifacts.disk import disk_errors
from service.dataset.candidates import Candidate, Reason, Record, Rejection
from service.dataset.decoding import decode, squared
from service.dataset.fetching import Outcome, read_ahead
from service.exits import BadData
from service.settings.data_prep import DataPrepSettings

log = structlog.get_logger(__name__)

FEWEST = 2
"""One image to train on and one to hold out."""


def screen(candidates: Iterable[Candidate], settings: DataPrepSettings, folder: Path) -> list[Record]:
    """Records of the candidates in their order; the images of the accepted ones are written to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    records: list[Record] = []
    accepted: set[str] = set()

    def full() -> bool:
        return len(accepted) >= settings.limit

    source = iter(candidates)
    for candidate, outcome in read_ahead(taken_until(full, source)):
        record = left_out(candidate) if full() else judge(candidate.origin, outcome, settings, accepted, folder)
        if record.sha256 and record.reason is None:
            accepted.add(record.sha256)
        records.append(record)
    if isinstance(candidates, Sequence):
        records += [left_out(candidate) for candidate in source]
    log.info("screened", accepted=len(accepted), left_out=dict(reasons(records)))
    return records


def taken_until(done: Callable[[], bool], source: Iterator[Candidate]) -> Iterator[Candidate]:
    """Takes nothing from `source` any more once `done`."""
    while not done():
        try:
            candidate = next(source)
        except StopIteration:
            return
        yield candidate


def left_out(candidate: Candidate) -> Record:
    return Record(candidate.origin, Reason.LIMIT_REACHED)


def judge(origin: str, outcome: Outcome, settings: DataPrepSettings, known: set[str], folder: Path) -> Record:
    """The record of one candidate; `known` holds the sha256 of the images accepted before it."""
    try:
        if isinstance(outcome, Rejection):
            raise outcome
        with disk_errors(folder, "DATA_PREP_FOLDER"):
            image = decode(outcome)
        require_size(image, settings.min_side)
    except Rejection as rejection:
        log.debug("left out", origin=origin, reason=rejection.reason, detail=rejection.detail)
        return Record(origin, rejection.reason)
    image = squared(image, settings.square)
    sha256 = pixel_hash(image)
    if sha256 in known:
        return Record(origin, Reason.DUP_EXACT, sha256, image.width, image.height)
    file = folder / f"{sha256}.png"
    with disk_errors(file, "WORK_DIR"):
        write_png(image, file)
    return Record(origin, None, sha256, image.width, image.height, file)


def require_size(image: Image.Image, min_side: int) -> None:
    """Raises Rejection(too_small) when the shorter side has fewer than `min_side` pixels."""
    if min(image.size) < min_side:
        raise Rejection(Reason.TOO_SMALL, f"{image.width}x{image.height}")


def pixel_hash(image: Image.Image) -> str:
    """sha256 in hex of an RGB image's size and pixels, whatever file it came in."""
    return hashlib.sha256(f"{image.width}x{image.height}:".encode() + image.tobytes()).hexdigest()


def write_png(image: Image.Image, file: Path) -> None:
    """The same pixels give the same bytes: every choice of the encoder is fixed, and there is no metadata."""
    image.save(file, format="PNG", compress_level=6)


def reasons(records: Sequence[Record]) -> Counter[str]:
    """How many candidates were left out for which reason."""
    return Counter(str(record.reason) for record in records if record.reason is not None)


def require_enough(records: Sequence[Record], settings: DataPrepSettings) -> None:
    """Raises BadData, with the number of images and the reasons for the others, when too few candidates are good."""
    asked = {"bing": f"DATA_PREP_QUERY={settings.query}", "folder": f"DATA_PREP_FOLDER={settings.folder}"}
    origin = asked[settings.source]
    good = sum(record.reason is None for record in records)
    if not records:
        raise BadData(f"{origin} holds no image")
    counts = ", ".join(f"{count} {reason}" for reason, count in reasons(records).most_common()) or "none"
    if good == 0:
        raise BadData(f"{origin} holds no usable image among {len(records)} candidates; left out: {counts}")
    if good < settings.min_images:
        raise BadData(
            f"{origin} has {good} good images of {len(records)} candidates, fewer than "
            f"DATA_PREP_MIN_IMAGES={settings.min_images}; left out: {counts}"
        )
    if good < FEWEST:
        raise BadData(
            f"{origin} has {good} good image of {len(records)} candidates; a data set needs one to train on and one to "
            f"hold out, whatever DATA_PREP_MIN_IMAGES says; left out: {counts}"
        )
