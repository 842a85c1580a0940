"""The copy of the champion, which several may make at the same moment."""

import threading
from pathlib import Path

import pytest

from service.artifacts import layout, releasing
from service.artifacts.history import History, append
from service.artifacts.kinds.registry import Entry
from service.artifacts.manifest import MANIFEST_NAME
from service.artifacts.publishing import read_manifest
from service.artifacts.releasing import follow
from service.exits import StorageUnreachable
from service.storage.local import LocalStore
from tests.releases import MODEL, reigning, trained

MANIFEST = f"{layout.ChampionCopy(MODEL).path}/{MANIFEST_NAME}"


class Contended(LocalStore):
    """A store where somebody else begins the same copy as soon as we are done with ours, and is done a little later."""

    def __init__(self, root: Path, seconds: float) -> None:
        super().__init__(root)
        self.seconds = seconds
        self.others: list[threading.Timer] = []

    def put(self, key: str, data: bytes | Path) -> None:
        super().put(key, data)
        if key == MANIFEST:
            self.delete(MANIFEST)
            self.others.append(threading.Timer(self.seconds, super().put, (key, data)))
            self.others[-1].start()


def contended(root: Path, seconds: float) -> Contended:
    """With a champion that is not copied yet."""
    store = Contended(root, seconds)
    path = trained(store, "one")
    append(store, History.read(store, MODEL), Entry(lora=path, version=read_manifest(store, path).version, promotion=1))
    return store


def test_two_who_copy_the_champion_at_once_do_not_undo_each_others_work_for_ever(tmp_path: Path) -> None:
    store = contended(tmp_path / "artifacts", 0.3)
    follow(store, MODEL, tmp_path / "work")
    for other in store.others:
        other.join()
    assert len(store.others) < releasing.TRIES
    assert reigning(store) == "runs/one/lora"


def test_who_is_disturbed_each_time_says_so_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(releasing, "LONGEST_PAUSE", 0.0)
    store = contended(tmp_path / "artifacts", 3600.0)
    with pytest.raises(StorageUnreachable, match="copied by others all the time"):
        follow(store, MODEL, tmp_path / "work")
    assert len(store.others) == releasing.TRIES
    for other in store.others:
        other.cancel()
