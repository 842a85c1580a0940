"""Images that are not to be in the data set, whatever else speaks for them: known by URL, by hash, or by their look."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from service.artifacts.kinds import exclusions
from service.dataset.candidates import Candidate, Reason, Record
from service.dataset.images.duplicates import near_any
from service.dataset.selection import without_fragment
from service.diffusion.looks import Look
from service.settings.data_prep import DataPrepSettings
from service.settings.marks import LOOK
from service.storage.interface import ObjectStore

OF_THE_SETTING = "DATA_PREP_EXCLUDE"
"""The reason of what no record in the store names."""


@dataclass(frozen=True)
class Excluded:
    """Why to leave out what is known by a mark. distance: in bits, how near a look must be to one that is excluded."""

    reasons: Mapping[str, str]
    distance: int

    def parted(self, candidates: Sequence[Candidate]) -> tuple[list[Candidate], list[Record]]:
        """The candidates that may be looked at, and the records of those whose URL, or page, is excluded."""
        why = {candidate.rank: self._of_address(candidate) for candidate in candidates}
        records = [_left_out(one, reason) for one in candidates if (reason := why[one.rank]) is not None]
        return [one for one in candidates if why[one.rank] is None], records

    def applied(self, records: Sequence[Record]) -> list[Record]:
        """The records; images that are known by a hash are now left out as excluded, and those that look like one of them.

        Nothing of their pixels is kept: neither a hash for the provenance nor a thumbnail for the report.
        """
        if not self.reasons:
            return list(records)
        why = {record.candidate.rank: self._of_content(record) for record in records}
        looks = self._looks() | {_look(record): reason for record in records if (reason := why[record.candidate.rank])}
        seen = [record for record in records if record.features is not None and not why[record.candidate.rank]]
        alike = near_any([_look(record) for record in seen], list(looks), self.distance)
        reasons = list(looks.values())
        for record, index in zip(seen, alike, strict=True):
            if index is not None:
                why[record.candidate.rank] = reasons[index]
        return [
            _left_out(record.candidate, reason) if (reason := why[record.candidate.rank]) else record
            for record in records
        ]

    def _of_address(self, candidate: Candidate) -> str | None:
        addresses = {candidate.origin, without_fragment(candidate.origin), candidate.page}
        return self._first(address for address in addresses if address)

    def _of_content(self, record: Record) -> str | None:
        known = record.features
        return self._first((known.source_sha256, known.sha256)) if known else None

    def _first(self, marks: Iterable[str]) -> str | None:
        return next((self.reasons[mark] for mark in marks if mark in self.reasons), None)

    def _looks(self) -> dict[Look, str]:
        return {Look.parse(mark): reason for mark, reason in self.reasons.items() if LOOK.fullmatch(mark)}


def excluded_by(settings: DataPrepSettings, store: ObjectStore) -> Excluded:
    """What the setting names, and what the records in the store do. Raises BadData for a record that cannot be read."""
    named = dict.fromkeys(settings.exclude, OF_THE_SETTING)
    return Excluded(named | exclusions.reasons(exclusions.read_all(store)), settings.near_distance)


def with_all_named(settings: DataPrepSettings, excluded: Excluded) -> DataPrepSettings:
    """The settings with all marks in DATA_PREP_EXCLUDE, so that they are part of the data set's identity."""
    return settings.model_copy(update={"exclude": sorted(excluded.reasons)})


def _left_out(candidate: Candidate, reason: str) -> Record:
    return Record(candidate, Reason.EXCLUDED, reason)


def _look(record: Record) -> Look:
    assert record.features is not None
    return Look(record.features.phash, record.features.dhash, record.features.colour)
