"""The page of a data set, for people: what came in, what stayed out and why, and what the captions will teach."""

import base64
import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from service.dataset.candidates import Reason, Record
from service.dataset.selection import host_of
from service.templates import rendered

Item = TypeVar("Item")

TEMPLATE = Path(__file__).with_name("report.html.jinja")
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
    Reason.IRRELEVANT: "does not show what was searched for",
    Reason.DUP_URL: "the same URL again",
    Reason.DUP_EXACT: "the same pixels again",
    Reason.DUP_NEAR: "looks like a larger image",
    Reason.CAPTION_FAILED: "nothing could be said about it",
    Reason.LIMIT_REACHED: "good enough, and there were enough",
}
SIDES = (64, 128, 256, 512, 1024, 2048)
ASPECTS = ((0.5, "tall, under 1:2"), (0.8, "tall"), (1.25, "about square"), (2.0, "wide"))
MOST_ASPECT = "wide, over 2:1"
HOSTS = 15
WORDS = 12
SHOWN = 120
"""Images on each sheet, and rows of the list below them; spread over all, so that the page stays small."""
FUSED_SHARE = 0.3
FUSED_FROM = 10
"""Captions below which a share says little."""
STOP_WORDS = frozenset(
    [
        "a",
        "an",
        "the",
        "of",
        "on",
        "in",
        "at",
        "to",
        "and",
        "or",
        "with",
        "without",
        "by",
        "for",
        "from",
        "is",
        "are",
        "was",
        "be",
        "its",
        "it",
        "his",
        "her",
        "their",
        "this",
        "that",
        "there",
        "some",
        "two",
        "one",
        "up",
        "down",
        "out",
        "over",
        "under",
        "into",
        "near",
        "next",
        "as",
    ]
)
WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


@dataclass(frozen=True)
class Tile:
    """An image on a contact sheet: a PNG of at most 96 pixels a side, and what stands below it."""

    picture: bytes
    text: str
    origin: str
    split: str = ""

    @property
    def source(self) -> str:
        """The picture as a URL that needs no second file."""
        return "data:image/png;base64," + base64.b64encode(self.picture).decode("ascii")

    @property
    def link(self) -> str | None:
        """The origin where it is the URL of a page or an image, and nothing that a browser would run."""
        return self.origin if self.origin.startswith(("http://", "https://")) else None


class Unseen(NamedTuple):
    """A candidate of which there is no picture, with what is known of why."""

    reason: str
    detail: str
    origin: str


class Bar(NamedTuple):
    """A row of a chart: `number`, and `share` of the longest row in percent."""

    label: str
    number: int
    share: float
    note: str = ""


@dataclass(frozen=True)
class CaptionStatistics:
    """What the captions have in common beside the style phrase. Lengths are in words, the phrase not counted."""

    shortest: int
    median: float
    longest: int
    lengths: list[Bar]
    words: list[Bar]
    fused: list[Bar] | None
    """Words that the style phrase will mean as well; None when there are too few captions to tell."""


def write_report(
    file: Path,
    *,
    name: str,
    style: str,
    records: Sequence[Record],
    captions: Mapping[str, str],
    accepted: Sequence[Tile],
    rejected: Sequence[Tile],
    held_out: int,
    settings: Mapping[str, Any],
) -> None:
    """Writes the page. The same arguments give the same bytes.

    `captions` is by sha256, of accepted records only; `accepted` and `rejected` are the tiles of the contact sheets;
    `held_out` of the accepted images are not trained on.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    good = [record for record in records if record.reason is None]
    page = rendered(
        TEMPLATE,
        name=name,
        style=style,
        candidates=len(records),
        good=len(good),
        held_out=held_out,
        hosts=by_host(records),
        host_count=len({host for record in records if (host := host_of(record.candidate.origin))}),
        reasons=by_reason(records),
        sides=histogram([side_of(record) for record in good], side_labels()),
        aspects=histogram([aspect_of(record) for record in good], [*(label for _, label in ASPECTS), MOST_ASPECT]),
        animated=sum(record.features is not None and record.features.animated for record in good),
        captions=caption_statistics([captions[record.sha256] for record in good if record.sha256 in captions], style),
        fused_share=f"{FUSED_SHARE:.0%}",
        fused_from=FUSED_FROM,
        accepted=accepted,
        rejected=rejected,
        seen=sum(record.reason is not None and record.features is not None for record in records),
        unseen=[
            Unseen(str(one.reason), one.detail, one.candidate.origin) for one in of_each_reason(records, seen=False)
        ],
        unseen_count=sum(record.features is None for record in records),
        settings={key: "" if value is None else value for key, value in sorted(settings.items())},
    )
    file.write_text(page, encoding="utf-8", errors="replace")


def by_reason(records: Sequence[Record]) -> list[Bar]:
    """How many candidates were left out for which reason, the commonest first."""
    counts = Counter(record.reason for record in records if record.reason is not None)
    return bars([(str(reason), count, EXPLANATIONS[reason]) for reason, count in ordered(counts)])


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


def caption_statistics(captions: Sequence[str], style: str) -> CaptionStatistics | None:
    """Lengths and words of the captions without the style phrase; None without captions."""
    if not captions:
        return None
    phrase = WORD.findall(style.casefold())
    contents = [without_phrase(WORD.findall(caption.casefold()), phrase) for caption in captions]
    lengths = [len(words) for words in contents]
    used = Counter(word for words in contents for word in set(words) - STOP_WORDS)
    total = len(captions)
    fused = [(word, count, f"{count / total:.0%}") for word, count in ordered(used) if count >= FUSED_SHARE * total]
    return CaptionStatistics(
        min(lengths),
        statistics.median(lengths),
        max(lengths),
        histogram([length_label(length) for length in lengths], [length_label(length) for length in range(0, 45, 5)]),
        bars([(word, count, f"{count / total:.0%}") for word, count in ordered(used)[:WORDS]]),
        bars(fused) if total >= FUSED_FROM else None,
    )


def length_label(length: int) -> str:
    low = min(length // 5 * 5, 40)
    return f"{low} to {low + 4}" if low < 40 else "40 or more"


def without_phrase(words: Sequence[str], phrase: Sequence[str]) -> list[str]:
    """The words after the phrase, where they begin with it."""
    return list(words[len(phrase) :]) if phrase and list(words[: len(phrase)]) == list(phrase) else list(words)


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
