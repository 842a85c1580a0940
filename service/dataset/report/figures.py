"""How many of what there are: reasons, hosts, sizes and shapes, as rows of charts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from service.artifacts.kinds.dataset import host_of
from service.dataset.candidates import Reason, Record
from service.dataset.notes import Note

EXPLANATIONS = {
    Reason.HTTP_STATUS: "the host answered with an error",
    Reason.TIMEOUT: "the host was too slow",
    Reason.DNS: "the name of the host does not resolve",
    Reason.CONNECTION: "the connection failed or broke",
    Reason.BLOCKED_ADDRESS: "not a public http(s) address",
    Reason.TOO_MANY_REDIRECTS: "sent from one place to another without end",
    Reason.TOO_LARGE_BYTES: "more bytes than allowed",
    Reason.ROBOTS_NOAI: "its owner forbids learning from it",
    Reason.NOT_IMAGE: "something else than an image",
    Reason.FORMAT_NOT_ALLOWED: "an image in a format that is not opened",
    Reason.TRUNCATED: "cut off or damaged",
    Reason.DECOMPRESSION_BOMB: "would unfold to too many pixels",
    Reason.TOO_SMALL: "too few pixels",
    Reason.ASPECT_RATIO: "too long and thin",
    Reason.LOW_ENTROPY: "blank, or nearly",
    Reason.TOO_DARK: "16 bits of which the upper ones are empty",
    Reason.IRRELEVANT: "does not show what was searched for",
    Reason.DUP_URL: "the same URL again",
    Reason.DUP_EXACT: "the same pixels again",
    Reason.DUP_NEAR: "looks like a larger image",
    Reason.EXCLUDED: "withdrawn: DATA_PREP_EXCLUDE or the store's list names it",
    Reason.CAPTION_FAILED: "nothing could be said about it",
    Reason.LIMIT_REACHED: "good enough, and there were enough",
}
EXPLAINED_NOTES = {
    Note.UNREAD_CAPTION_FILES: "files that look like captions and were not read",
    Note.ROWS_WITHOUT_IMAGE: "rows of tables that name no image, or more than one",
    Note.CAPTIONED_TWICE: "further captions of an image in the tables of its folder: the first stays",
    Note.LINES_JOINED: "captions of several lines, which became one",
    Note.CUT_TO_FIT: "captions longer than the text encoder reads: their end was cut",
    Note.LOOPS_CUT: "captions that said a phrase again and again: once is enough",
    Note.INVENTED_WORDS_CUT: "captions with a word that is none, such as “arafed”, which was cut",
}
SIDES = (64, 128, 256, 512, 1024, 2048)
ASPECTS = ((0.5, "tall, under 1:2"), (0.8, "tall"), (1.25, "about square"), (2.0, "wide"))
MOST_ASPECT = "wide, over 2:1"
HOSTS = 15


class Bar(NamedTuple):
    """A row of a chart: `number`, and `share` of the longest row in percent."""

    label: str
    number: int
    share: float
    note: str = ""


def by_reason(records: Sequence[Record]) -> list[Bar]:
    """How many candidates were left out for which reason, the commonest first."""
    counts = Counter(record.reason for record in records if record.reason is not None)
    return bars([(str(reason), count, EXPLANATIONS[reason]) for reason, count in ordered(counts)])


def by_note(notes: Mapping[Note, int]) -> list[Bar]:
    """What was not taken of captions as it came, the commonest first."""
    return bars([(str(note), count, EXPLAINED_NOTES[note]) for note, count in ordered(notes)])


def by_host(records: Sequence[Record]) -> list[Bar]:
    """The hosts with the most candidates, with how many of them were accepted; empty for files."""
    counts = Counter(host_of(record.candidate.origin) for record in records)
    accepted = Counter(host_of(record.candidate.origin) for record in records if record.reason is None)
    del counts[""]
    return bars([(host, count, f"{accepted[host]} accepted") for host, count in ordered(counts)[:HOSTS]])


def ordered(counts: Mapping[Any, int]) -> list[tuple[Any, int]]:
    """By count, then by name: a Counter's own order would be that of the first appearance."""
    return sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))


def bars(rows: Sequence[tuple[str, int, str]]) -> list[Bar]:
    most = max((count for _, count, _ in rows), default=0)
    return [Bar(label, count, round(100 * count / most, 1) if most else 0, note) for label, count, note in rows]


def histogram(labels: Sequence[str], order: Sequence[str]) -> list[Bar]:
    """How often each label occurs, in the given order; the empty ends are left out."""
    counts = Counter(labels)
    present = [index for index, label in enumerate(order) if counts[label]]
    shown = order[present[0] : present[-1] + 1] if present else []
    return bars([(label, counts[label], "") for label in shown])


def side_labels() -> list[str]:
    below = [f"under {SIDES[0]}"]
    between = [f"{low} to {high - 1}" for low, high in pairwise(SIDES)]
    return [*below, *between, f"{SIDES[-1]} or more"]


def side_of(record: Record) -> str:
    """The bin of the shorter side of the image as it came, in pixels."""
    assert record.features is not None
    side = min(record.features.source_width, record.features.source_height)
    return side_labels()[sum(side >= edge for edge in SIDES)]


def aspect_of(record: Record) -> str:
    """The bin of width / height of the image as it came."""
    assert record.features is not None
    aspect = record.features.source_width / record.features.source_height
    return next((label for edge, label in ASPECTS if aspect < edge), MOST_ASPECT)
