"""Of values that are proposed at once one is chosen, whoever stands still or dies in between, and for all who ask."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.artifacts import agreement
from service.artifacts.agreement import agree
from service.exits import StorageUnreachable
from service.storage.interface import NotFound, StoredObject

MOST = 9
"""More operations than an undisturbed writer has."""


class Died(BaseException):
    """A writer ends here."""


class Memory:
    """A store of a dictionary, in whose n-th operation from here on something else happens first."""

    def __init__(self) -> None:
        self.uri = "memory"
        self.objects: dict[str, bytes] = {}
        self.planned: list[tuple[int, Callable[[], object]]] = []

    def before(self, operation: int, action: Callable[[], object]) -> None:
        self.planned.append((operation, action))

    def put(self, key: str, data: bytes | Path) -> None:
        self._meanwhile()
        assert isinstance(data, bytes)
        assert key not in self.objects, "what is put is never changed"
        self.objects[key] = data

    def put_if_absent(self, key: str, data: bytes) -> bool:
        raise AssertionError(f"no conditions are needed, not for {key} with {data!r}")

    def get(self, key: str) -> bytes:
        self._meanwhile()
        try:
            return self.objects[key]
        except KeyError as error:
            raise NotFound(key) from error

    def download(self, key: str, target: Path) -> None:
        raise AssertionError(f"nothing is downloaded, not {key} to {target}")

    def list(self, prefix: str) -> Iterator[StoredObject]:
        self._meanwhile()
        return iter([StoredObject(key, 1) for key in sorted(self.objects) if key.startswith(prefix)])

    def delete(self, key: str) -> None:
        raise AssertionError(f"nothing is deleted, not {key}")

    def _meanwhile(self) -> None:
        """Of several plans the last made counts first: it is of the writer who runs now."""
        if self.planned:
            left, action = self.planned.pop()
            if left > 1:
                self.planned.append((left - 1, action))
            else:
                action()


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "LONGEST", 0.0)


def ask(store: Memory, proposal: bytes, chosen: list[bytes]) -> None:
    """One writer, whose death ends nobody else."""
    depth = len(store.planned)
    try:
        chosen.append(agree(store, "model", 1, proposal))
    except Died:
        return
    finally:
        del store.planned[depth:]


def die() -> None:
    raise Died


@pytest.mark.parametrize("first", range(1, MOST))
@pytest.mark.parametrize("second", range(1, MOST))
@pytest.mark.parametrize("third", ["a third comes by", "the second dies"])
def test_whoever_comes_in_between_at_whatever_moment_all_get_the_same(first: int, second: int, third: str) -> None:
    store, chosen = Memory(), list[bytes]()

    def inner() -> None:
        store.before(second, die if third == "the second dies" else lambda: ask(store, b"third", chosen))
        ask(store, b"second", chosen)

    store.before(first, inner)
    ask(store, b"first", chosen)
    ask(store, b"late", chosen)
    assert len(chosen) >= 2
    assert len(set(chosen)) == 1
    assert chosen[0] in (b"first", b"second", b"third")


@pytest.mark.parametrize("died", range(1, MOST))
@pytest.mark.parametrize("died_again", range(1, MOST))
def test_writers_who_died_are_in_nobodys_way(died: int, died_again: int) -> None:
    store, chosen = Memory(), list[bytes]()
    for proposal, operation in ((b"first", died), (b"second", died_again)):
        store.before(operation, die)
        ask(store, proposal, chosen)
    ask(store, b"third", chosen)
    ask(store, b"fourth", chosen)
    assert chosen
    assert len(set(chosen)) == 1


def test_who_is_overtaken_each_time_says_so_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "ATTEMPTS", 3)
    store = Memory()

    def promise_more() -> None:
        store.objects[f"registry/model/ballots/00000001/{len(store.objects) + 100:08d}/z/promised"] = b""
        store.before(1, promise_more)

    store.before(1, promise_more)
    with pytest.raises(StorageUnreachable, match="try again"):
        agree(store, "model", 1, b"mine")
