"""Which of very many are shown."""

from collections.abc import Sequence
from typing import TypeVar

from service.dataset.candidates import Reason, Record

Item = TypeVar("Item")

SHOWN = 120
"""Images on each sheet, and rows of the list below them; spread over all, so that the page stays small."""


def of_each_reason(records: Sequence[Record], *, seen: bool) -> list[Record]:
    """SHOWN of the records that were left out after they were decoded (`seen`), or before; by reason.

    A rare reason is shown whole: a hundred copies tell less than the one picture that is too small.
    """
    groups: dict[str, list[Record]] = {}
    for record in records:
        if record.reason is not None and (record.features is not None) == seen:
            groups.setdefault(record.reason, []).append(record)
    named = [groups[reason] for reason in Reason if reason in groups]
    shares = shared_out([len(group) for group in named], SHOWN)
    return [record for group, share in zip(named, shares, strict=True) for record in spread(group, share)]


def shared_out(sizes: Sequence[int], count: int) -> list[int]:
    """How many of `count` each group gets: small groups all that they have, the others equal parts of the rest."""
    shares = [0] * len(sizes)
    ordered = sorted(range(len(sizes)), key=lambda index: sizes[index])
    for place, index in enumerate(ordered):
        shares[index] = min(sizes[index], count // (len(sizes) - place))
        count -= shares[index]
    return shares


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """`count` items evenly spread over the sequence, from the first; all of them when they are not more."""
    if len(items) <= count:
        return list(items)
    return [items[index * len(items) // count] for index in range(count)]
