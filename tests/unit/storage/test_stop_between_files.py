"""Publishing and fetching something large stop between two files, and what is there then is no artifact and no copy."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service import stopping
from service.artifacts.fetching import fetch
from service.artifacts.manifest import MANIFEST_NAME
from service.artifacts.publishing import exists, publish, publish_version
from service.exits import Stopped
from service.storage.opening import open_store

FILES = 50


@pytest.fixture
def heard() -> Iterator[None]:
    """Signals are heard as in a job."""
    before = {number: signal.getsignal(number) for number in stopping.SIGNALS}
    stopping.listen()
    yield
    stopping.listen()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "made"
    made.mkdir()
    for number in range(FILES):
        (made / f"{number:02}").write_bytes(b"content")
    return made


def told_after(files: int) -> Callable[[], None]:
    """The pause of a process that is told to stop after so many files."""
    seen = []

    def stop_check() -> None:
        seen.append(1)
        if len(seen) == files:
            os.kill(os.getpid(), signal.SIGTERM)
        stopping.check()

    return stop_check


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("after", [1, FILES // 2, FILES + 1, FILES + FILES // 2])
def test_a_stop_leaves_no_artifact_and_the_next_start_publishes_it(after: int, folder: Path, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    with pytest.raises(Stopped):
        publish_version(store, folder, kind="dataset", prefix="datasets/a", stop_check=told_after(after))
    assert [entry.key for entry in store.list("") if entry.key.endswith(MANIFEST_NAME)] == []
    stopping.listen()
    assert exists(store, publish_version(store, folder, kind="dataset", prefix="datasets/a").path)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize(("kind", "after"), [("in place", FILES // 2), ("copied", FILES + FILES // 2)])
def test_a_stop_ends_a_fetch_and_the_next_start_fetches_all(
    kind: str, after: int, folder: Path, tmp_path: Path
) -> None:
    store = open_store(str(tmp_path / "store"))
    publish(store, folder, kind="dataset", path="datasets/a/1")
    if kind == "copied":
        # Something that is no part of the artifact makes a local one be copied as one from far away is.
        store.put("datasets/a/1/stray", b"")
    with pytest.raises(Stopped):
        fetch(store, "datasets/a/1", tmp_path / "work", told_after(after))
    assert list((tmp_path / "work").rglob("??")) == []
    stopping.listen()
    found = fetch(store, "datasets/a/1", tmp_path / "work", stopping.check)
    assert len(list(found.glob("??"))) == FILES


@pytest.mark.usefixtures("heard")
def test_a_checkpoint_is_published_just_because_of_the_stop(folder: Path, tmp_path: Path) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    store = open_store(str(tmp_path / "store"))
    publish(store, folder, kind="checkpoint", path="runs/r/checkpoints/step-00000001/a")
    assert exists(store, "runs/r/checkpoints/step-00000001/a")
