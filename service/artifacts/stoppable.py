"""A store for publishing something large that the next start can publish again."""

from pathlib import Path
from typing import Any, cast

from service import stopping
from service.artifacts.stores import ObjectStore


class Stoppable:
    """The store, whose `put` raises Stopped once the process was told to stop.

    Without a manifest the files that were stored until then are no artifact. Not for a checkpoint, which is published
    just because the process was told to stop.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put(self, key: str, data: bytes | Path) -> None:
        stopping.check()
        self._store.put(key, data)


def stoppable(store: ObjectStore) -> ObjectStore:
    return cast(ObjectStore, Stoppable(store))
