"""One of several values that are proposed at once, on a store that can do no more than put and list.

Disk Paxos (Gafni & Lamport, Distributed Computing 16, 2003) with the store as its one disk. It needs neither a clock nor
conditional writes, only listings that show what has been put; and no writer that dies or stands still does any harm:

1. A writer puts a promise under a round above all that it sees, and lists. When it sees a higher round, it begins again.
2. It takes over the value that was accepted in the highest round, or, when none was, proposes its own; it puts that as
   accepted in its round, and lists again. When it still sees no higher round, the value is chosen, for ever.

Whoever comes later with a higher round put its promise after that last listing began, or it would have been seen; so its own
listing shows what was accepted, and it takes that over. What is put is never changed or deleted, since a writer that stood
still for a year may come back to it.
"""

import random
import uuid

from service import stopping
from service.artifacts import layout
from service.exits import StorageUnreachable
from service.storage.interface import ObjectStore

PROMISED, ACCEPTED = "promised", "accepted"
ATTEMPTS = 40
SHORTEST, LONGEST = 0.01, 1.0
"""Seconds that one of several writers waits at most before it tries again: at first, and in the end."""


def agree(store: ObjectStore, name: str, number: int, proposal: bytes) -> bytes:
    """The content of entry `number` of the model `name`, the same for all who ask: `proposal`, or another's.

    Raises StorageUnreachable when others come in between all the time.
    """
    writer = uuid.uuid4().hex[:12]
    for attempt in range(ATTEMPTS):
        round_ = 1 + max((ballot.round for ballot in _ballots(store, name, number)), default=0)
        mine = (round_, writer)
        store.put(layout.Ballot(name, number, round_, writer, PROMISED).path, b"promised\n")
        seen = _ballots(store, name, number)
        if not _overtaken(seen, mine):
            accepted = [ballot for ballot in seen if ballot.phase == ACCEPTED]
            value = store.get(max(accepted, key=_order).path) if accepted else proposal
            store.put(layout.Ballot(name, number, round_, writer, ACCEPTED).path, value)
            if not _overtaken(_ballots(store, name, number), mine):
                return value
        stopping.pause(random.uniform(0, min(LONGEST, SHORTEST * 2**attempt)))
    raise StorageUnreachable(
        f"others write entry {number} of the registry of {name} in {store.uri} all the time; try again"
    )


def _ballots(store: ObjectStore, name: str, number: int) -> list[layout.Ballot]:
    folder = layout.Ballots(name, number).path
    return [ballot for entry in store.list(f"{folder}/") if (ballot := layout.Ballot.parse(entry.key))]


def _order(ballot: layout.Ballot) -> tuple[int, str]:
    return ballot.round, ballot.writer


def _overtaken(seen: list[layout.Ballot], mine: tuple[int, str]) -> bool:
    return any(_order(ballot) > mine for ballot in seen)
