"""Publishing something large stops between two files, and what is there then is no artifact."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from service import stopping
from service.artifacts.publishing import exists, publish
from service.artifacts.stoppable import stoppable
from service.artifacts.stores import open_store
from service.exits import Stopped


@pytest.fixture
def told_to_stop() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in stopping.SIGNALS}
    stopping.listen()
    os.kill(os.getpid(), signal.SIGTERM)
    yield
    stopping.listen()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("told_to_stop")
def test_a_stop_leaves_no_artifact_and_the_next_start_publishes_it(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(b"content")
    store = open_store(str(tmp_path / "store"))
    with pytest.raises(Stopped):
        publish(stoppable(store), tmp_path / "folder", kind="dataset", path="datasets/a/1")
    assert not exists(store, "datasets/a/1")
    stopping.listen()
    publish(stoppable(store), tmp_path / "folder", kind="dataset", path="datasets/a/1")
    assert exists(store, "datasets/a/1")


@pytest.mark.usefixtures("told_to_stop")
def test_a_checkpoint_is_published_just_because_of_the_stop(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(b"content")
    store = open_store(str(tmp_path / "store"))
    publish(store, tmp_path / "folder", kind="checkpoint", path="runs/r/checkpoints/step-00000001/a")
    assert exists(store, "runs/r/checkpoints/step-00000001/a")
