"""The history of a model: its entries by number, each named after the content of the one before it.

The last entry says who is the champion. Nothing is ever rewritten: whoever changes something appends the next entry.
"""

import hashlib
from collections.abc import Sequence, Set
from dataclasses import dataclass
from datetime import datetime

from service.artifacts import layout
from service.artifacts.agreement import agree
from service.artifacts.kinds.registry import Entry
from service.exits import BadData, MissingInput
from service.storage.interface import ObjectStore, TellsConditions
from service.storage.parallel import for_each

DIGITS = 16


@dataclass(frozen=True)
class History:
    """All entries of a model. `digests`: what the name of the entry at this place says, and last what the next one's will."""

    model: str
    entries: tuple[Entry, ...]
    digests: tuple[str, ...]

    @classmethod
    def read(cls, store: ObjectStore, model: str) -> "History":
        """The history as it is now, empty for a model without one.

        Raises BadData for one with a gap, with two entries of one number, or with an entry that was changed afterwards;
        WrittenByNewer for an entry of a newer schema.
        """
        folder = layout.Registry(model).path
        places = _listed(store, folder)
        if not _without_gaps(places):
            # Of entries that are written during a listing it may show the later one alone.
            places = _listed(store, folder)
        contents: dict[str, bytes] = {}
        for_each(lambda place: contents.update({place.path: store.get(place.path)}), places, f"reading {folder}")
        entries, digests = [], [digest_of(b"")]
        for number, place in enumerate(places, 1):
            if place.number != number:
                what = "two entries with number" if place.number < number else "no entry with number"
                raise BadData(
                    f"the registry {store.uri}/{folder} has {what} {min(number, place.number)}; restore the bucket"
                )
        for number, place in enumerate(places, 1):
            where = f"{store.uri}/{place.path}"
            if place.digest != digests[-1]:
                raise BadData(
                    f"{where} does not follow the entry {number - 1} that is there, which was changed; restore the bucket"
                )
            content = contents[place.path]
            entries.append(Entry.from_bytes(content, where))
            digests.append(digest_of(content))
        return cls(model, tuple(entries), tuple(digests))

    @property
    def number(self) -> int:
        """The number of the last entry; 0 for a model without one."""
        return len(self.entries)

    @property
    def champion(self) -> Entry | None:
        """The last entry, when it names a LoRA."""
        return self.entries[-1] if self.entries and self.entries[-1].lora else None

    @property
    def retired(self) -> set[str]:
        """Versions of all LoRAs that were withdrawn."""
        return {version for entry in self.entries for version in entry.retired}

    def key(self, number: int) -> str:
        """The key of an entry, or of the next one."""
        return layout.RegistryEntry(self.model, number, self.digests[number - 1]).path

    def entry(self, number: int) -> Entry:
        """The entry with this number. Raises MissingInput without one."""
        if not 1 <= number <= self.number:
            raise MissingInput(f"the registry of {self.model} has no entry {number}; it has {self.number}")
        return self.entries[number - 1]

    def promotion_of(self, entry: Entry) -> Entry | None:
        """The entry that promoted the LoRA of this one, which is or will be part of the history; None where it names none."""
        if entry.promotion == self.number + 1:
            return entry
        return self.entries[entry.promotion - 1] if entry.promotion else None

    def number_on(self, moment: datetime) -> int:
        """The number of the last entry that was made until then; 0 when there was none."""
        return max((number for number, entry in enumerate(self.entries, 1) if entry.at <= moment), default=0)

    def next_best(self, withdrawn: Set[str] = frozenset()) -> Entry | None:
        """Who reigned before the champion was promoted, or before that one, and so on: the first other LoRA, not withdrawn."""
        entry = self.champion
        unfit = self.retired | withdrawn | ({entry.version} if entry else set())
        while entry and entry.promotion > 1:
            entry = self.entries[entry.promotion - 2]
            if entry.lora and entry.version not in unfit:
                return entry
        return None


def _listed(store: ObjectStore, folder: str) -> list[layout.RegistryEntry]:
    """Where the entries are, in the order of their numbers."""
    places = [place for stored in store.list(f"{folder}/") if (place := layout.RegistryEntry.parse(stored.key))]
    return sorted(places, key=lambda place: place.number)


def _without_gaps(places: Sequence[layout.RegistryEntry]) -> bool:
    """Whether there is one of each number from 1 on."""
    return [place.number for place in places] == list(range(1, len(places) + 1))


def digest_of(content: bytes) -> str:
    """By which the next entry's name stands for this one."""
    return hashlib.sha256(content).hexdigest()[:DIGITS]


def append(store: ObjectStore, history: History, entry: Entry) -> Entry:
    """Writes the next entry, if nobody else has written it. Returns the one that stands there: ours or another's.

    Of any number of writers at once, with whatever they propose, one entry comes of it, on every store.
    """
    number, content = history.number + 1, entry.to_bytes()
    key = history.key(number)
    if not (isinstance(store, TellsConditions) and store.honours_conditions()):
        content = agree(store, history.model, number, content)
    store.put_if_absent(key, content)
    return Entry.from_bytes(store.get(key), f"{store.uri}/{key}")


def champion_of(store: ObjectStore, model: str) -> Entry:
    """The champion of a model. Raises MissingInput when there is none."""
    found = History.read(store, model).champion
    if found is None:
        raise MissingInput(f"the registry of {model!r} in {store.uri} has no champion; promote a LoRA first")
    return found
