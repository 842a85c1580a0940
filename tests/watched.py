"""Stores in which something happens before each write: somebody looks, or the process dies."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from service.storage.interface import ObjectStore, StoredObject


class Watched:
    """A store of which each write is announced. It knows of no conditions, so that registry entries have to be agreed on."""

    def __init__(self, store: ObjectStore, before_write: Callable[[], None]) -> None:
        self._store, self._before_write = store, before_write
        self.uri = store.uri

    def put(self, key: str, data: bytes | Path) -> None:
        self._before_write()
        self._store.put(key, data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self._before_write()
        return self._store.put_if_absent(key, data)

    def get(self, key: str) -> bytes:
        return self._store.get(key)

    def download(self, key: str, target: Path) -> None:
        self._store.download(key, target)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        return self._store.list(prefix)

    def delete(self, key: str) -> None:
        self._before_write()
        self._store.delete(key)


class Killed(BaseException):
    """The process ends here, whatever would have caught an error."""


class Mortal(Watched):
    """A store whose process is killed before its n-th write. What was written before stays, and nothing comes after."""

    def __init__(self, store: ObjectStore, writes: int) -> None:
        super().__init__(store, self._count)
        self._left, self._lock = writes, threading.Lock()

    def _count(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left <= 0:
                raise Killed


class MortalWithConditions(Mortal):
    """The same on a store that honours conditional writes."""

    def honours_conditions(self) -> bool:
        return True
