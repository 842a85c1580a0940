"""Which candidates are looked at, by whom and in which order, and which of the good ones enter the data set."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple
from urllib.parse import urldefrag

from service.artifacts.kinds.dataset import host_of
from service.dataset.candidates import Candidate, Reason, Record
from service.dataset.images.duplicates import near_duplicates
from service.diffusion.looks import Look


class Plan(NamedTuple):
    """The candidates to look at, and the records of those that need no look; together all of them."""

    candidates: list[Candidate]
    settled: list[Record]


def plan(candidates: Sequence[Candidate], most: int) -> Plan:
    """The first `most` candidates of different URL are looked at."""
    first: dict[str, str] = {}
    looked_at: list[Candidate] = []
    settled: list[Record] = []
    for candidate in candidates:
        url = without_fragment(candidate.origin)
        if url in first:
            settled.append(Record(candidate, Reason.DUP_URL, kept=first[url]))
            continue
        first[url] = candidate.origin
        if len(looked_at) < most:
            looked_at.append(candidate)
        else:
            settled.append(Record(candidate, Reason.LIMIT_REACHED))
    return Plan(looked_at, settled)


def without_fragment(origin: str) -> str:
    """A URL without its fragment; anything else as it is."""
    return urldefrag(origin).url if "://" in origin else origin


def shard_of(candidates: Sequence[Candidate], index: int, count: int) -> list[Candidate]:
    """Every `count`-th candidate from the `index`-th: the `count` shards are disjoint, cover all, and differ by one at most."""
    return list(candidates[index::count])


def by_turns(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates in an order that visits the hosts by turns, so that no queue at one of them holds up the others."""
    visits: dict[str, int] = defaultdict(int)
    turns = []
    for candidate in candidates:
        host = host_of(candidate.origin)
        turns.append((visits[host], candidate.rank, candidate))
        visits[host] += 1
    return [candidate for *_, candidate in sorted(turns, key=lambda turn: turn[:2])]


class Criteria(NamedTuple):
    """What decides between good images: how many, how alike two may be, and how near to the query they must be."""

    limit: int
    near_duplicates: str
    near_distance: int
    min_relevance: float


def select(records: Sequence[Record], criteria: Criteria) -> list[Record]:
    """The records by rank, each good image either accepted or left out with its reason.

    Irrelevant ones go first; then equal ones, of which the first stays; then those that look alike, of which the largest
    stays, and of several as large a lossless one (`drop`); then those beyond the limit. The order in which the records come
    does not matter.
    """
    chosen = sorted(records, key=lambda record: record.candidate.rank)
    chosen = _without_irrelevant(chosen, criteria.min_relevance)
    chosen = _without_equal(chosen)
    if criteria.near_duplicates == "drop":
        chosen = _without_alike(chosen, criteria.near_distance)
    return _without_surplus(chosen, criteria.limit)


def _without_irrelevant(records: Sequence[Record], least: float) -> list[Record]:
    def judged(record: Record) -> Record:
        relevance = record.features.relevance if record.reason is None and record.features else None
        if relevance is None or relevance >= least:
            return record
        return replace(record, reason=Reason.IRRELEVANT, detail=f"{relevance:.1f}")

    return [judged(record) for record in records]


def _without_equal(records: Sequence[Record]) -> list[Record]:
    first: dict[str, str] = {}
    judged = []
    for record in records:
        if record.reason is None:
            kept = first.setdefault(record.sha256, record.candidate.origin)
            if kept != record.candidate.origin:
                record = replace(record, reason=Reason.DUP_EXACT, kept=kept)
        judged.append(record)
    return judged


def _without_alike(records: Sequence[Record], distance: int) -> list[Record]:
    judged = {record.candidate.rank: record for record in records}
    for alike in look_alike_groups(records, distance):
        kept = max(alike, key=lambda record: (_pixels(record), _lossless(record), -record.candidate.rank))
        for record in alike:
            if record is not kept:
                duplicate = replace(record, reason=Reason.DUP_NEAR, kept=kept.candidate.origin)
                judged[record.candidate.rank] = duplicate
    return list(judged.values())


def _pixels(record: Record) -> int:
    """The number of pixels of the image as it came."""
    assert record.features is not None
    return record.features.source_width * record.features.source_height


def _lossless(record: Record) -> bool:
    return record.features is not None and record.features.lossless


def _without_surplus(records: Sequence[Record], limit: int) -> list[Record]:
    judged, taken = [], 0
    for record in records:
        if record.reason is None:
            taken += 1
            if taken > limit:
                record = replace(record, reason=Reason.LIMIT_REACHED)
        judged.append(record)
    return judged


def look_alike_groups(records: Sequence[Record], distance: int) -> list[list[Record]]:
    """The good images, those that look alike together, each group and all of them in the order of the records."""
    good = [(record, record.features) for record in records if record.reason is None and record.features is not None]
    labels = near_duplicates([Look(one.phash, one.dhash, one.colour) for _, one in good], distance)
    gathered: dict[int, list[Record]] = defaultdict(list)
    for label, (record, _) in zip(labels, good, strict=True):
        gathered[label].append(record)
    return list(gathered.values())
