"""Checkpoints go to the store beside the training: none is lost, none is waited for, and a store that is gone is noticed."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from service.exits import AccessDenied, Diverged, Stopped, StorageUnreachable
from service.training.uploads import Uploads


class Store:
    """Notes what is committed; does what it is told to on the way."""

    def __init__(self, *moods: Exception | None) -> None:
        self.moods = list(moods)
        self.committed: list[int] = []
        self.asked: list[int] = []
        self.open = threading.Event()
        self.open.set()

    def commit(self, folder: Path, step: int) -> None:
        self.asked.append(step)
        self.open.wait(60)
        assert (folder / "file").read_text() == str(step)
        mood = self.moods.pop(0) if self.moods else None
        if mood is not None:
            raise mood
        self.committed.append(step)


@pytest.fixture
def save(tmp_path: Path) -> Callable[[int], Path]:
    def new(step: int) -> Path:
        folder = tmp_path / f"step-{step}"
        folder.mkdir()
        (folder / "file").write_text(str(step))
        return folder

    return new


def nothing() -> None:
    pass


def silent() -> StorageUnreachable:
    return StorageUnreachable("does not answer")


def test_training_goes_on_while_a_checkpoint_is_uploaded(save: Callable[[int], Path]) -> None:
    store = Store()
    store.open.clear()
    with Uploads(store.commit, 3) as uploads:
        uploads.submit(save(1), 1)
        assert store.committed == []
        store.open.set()
        uploads.finish(nothing)
        assert store.committed == [1]


def test_one_is_under_way_and_one_waits_and_of_those_that_wait_the_newest_counts(
    save: Callable[[int], Path], tmp_path: Path
) -> None:
    store = Store()
    store.open.clear()
    with Uploads(store.commit, 3) as uploads:
        uploads.submit(save(1), 1)
        while not store.asked:
            threading.Event().wait(0.01)
        for step in (2, 3, 4):
            uploads.submit(save(step), step)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["step-1", "step-4"]
        store.open.set()
        uploads.finish(nothing)
    assert store.committed == [1, 4]
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_does_not_answer_once_costs_nothing(save: Callable[[int], Path]) -> None:
    store = Store(silent())
    with Uploads(store.commit, 3) as uploads:
        uploads.submit(save(1), 1)
        uploads.finish(nothing)
    assert store.asked == [1, 1]
    assert store.committed == [1]


def test_a_failure_in_between_starts_the_count_anew(save: Callable[[int], Path]) -> None:
    store = Store(silent(), None, silent(), None)
    with Uploads(store.commit, 2) as uploads:
        for step in (1, 2, 3, 4):
            uploads.submit(save(step), step)
            wait_until(lambda step=step: len(store.asked) >= step)
            uploads.wait(nothing)
            uploads.check()
        uploads.finish(nothing)
    assert store.committed == [2, 4]


def test_so_many_failures_in_a_row_end_the_training_as_storage_unreachable(save: Callable[[int], Path]) -> None:
    store = Store(silent(), silent(), silent())
    with Uploads(store.commit, 3) as uploads:
        for step in (1, 2, 3):
            uploads.check()
            uploads.submit(save(step), step)
            uploads.wait(nothing)
        with pytest.raises(StorageUnreachable):
            uploads.check()
    assert store.committed == []


def test_refused_credentials_end_it_at_once(save: Callable[[int], Path]) -> None:
    store = Store(AccessDenied("403"))
    with Uploads(store.commit, 3) as uploads:
        uploads.submit(save(1), 1)
        uploads.wait(nothing)
        with pytest.raises(AccessDenied):
            uploads.check()
        with pytest.raises(AccessDenied):
            uploads.finish(nothing)


def test_the_last_one_must_succeed(save: Callable[[int], Path]) -> None:
    store = Store(silent(), silent())
    with Uploads(store.commit, 100) as uploads:
        uploads.submit(save(1), 1)
        with pytest.raises(StorageUnreachable):
            uploads.finish(nothing)
    assert store.asked == [1, 1]


def test_whatever_ends_the_training_what_was_saved_is_stored_first(save: Callable[[int], Path]) -> None:
    store = Store()
    store.open.clear()
    threading.Timer(0.2, store.open.set).start()

    def diverge() -> None:
        with Uploads(store.commit, 3) as uploads:
            uploads.submit(save(1), 1)
            raise Diverged("the loss is not finite")

    with pytest.raises(Diverged):
        diverge()
    assert store.committed == [1]


def wait_until(true: Callable[[], bool]) -> None:
    while not true():
        threading.Event().wait(0.01)


def test_one_that_was_given_up_by_a_request_to_stop_does_not_keep_the_last_one_from_the_store(
    save: Callable[[int], Path],
) -> None:
    store = Store(Stopped("told to stop"))
    with Uploads(store.commit, 3) as uploads:
        uploads.submit(save(1), 1)
        uploads.wait(nothing)
        uploads.submit(save(2), 2)
        uploads.finish(nothing)
    assert (store.asked, store.committed) == ([1, 2], [2])
