"""Whether the good images are enough for a data set, and what to say when they are not."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

from service.dataset.candidates import Reason, Record
from service.exits import BadData

FEWEST = 2
"""One image to train on and one to hold out."""


def without_uncaptioned(records: Sequence[Record], captions: Collection[str]) -> list[Record]:
    """The records; a good image of whose sha256 there is no caption is now left out (caption_failed)."""
    return [
        replace(record, reason=Reason.CAPTION_FAILED)
        if record.reason is None and record.sha256 not in captions
        else record
        for record in records
    ]


def _reasons(records: Sequence[Record]) -> Counter[str]:
    """How many candidates were left out for which reason."""
    return Counter(str(record.reason) for record in records if record.reason is not None)


def require_enough(records: Sequence[Record], origin: str, least: int) -> None:
    """Raises BadData, with the number of images and the reasons for the others, when fewer than `least` candidates are good.

    `origin`: where they come from, by the name that their source has for it.
    """
    good = sum(record.reason is None for record in records)
    if not records:
        raise BadData(f"{origin} holds no image")
    counts = ", ".join(f"{count} {reason}" for reason, count in _reasons(records).most_common()) or "none"
    if good == 0:
        raise BadData(f"{origin} holds no usable image among {len(records)} candidates; left out: {counts}")
    if good < least:
        raise BadData(
            f"{origin} has {good} good images of {len(records)} candidates, fewer than "
            f"DATA_PREP_MIN_IMAGES={least}; left out: {counts}"
        )
    if good < FEWEST:
        raise BadData(
            f"{origin} has {good} good image of {len(records)} candidates; a data set needs one to train on and one to "
            f"hold out, whatever DATA_PREP_MIN_IMAGES says; left out: {counts}"
        )
