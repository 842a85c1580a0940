"""A training that hangs ends, and shows where; one that gets on is left alone."""

import os
import threading
import time
from pathlib import Path

from service.exits import ExitCode
from service.logs import configure_logs
from service.training.watchdog import Watchdog
from tests.integration.chain import SERVER


def hang(said: Path, seconds: float) -> None:
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
    configure_logs("json")
    with Watchdog(seconds):
        hanging_here()


def hanging_here() -> None:
    threading.Event().wait(120)


def test_a_training_that_hangs_ends_as_stalled_with_its_stacks(tmp_path: Path) -> None:
    process = SERVER.Process(target=hang, args=(tmp_path / "said", 0.3))
    process.start()
    process.join(120)
    said = (tmp_path / "said").read_text()
    assert process.exitcode == ExitCode.STALLED, said
    assert "hanging_here" in said
    assert "TRAIN_STALL_SECONDS=0.3" in said


def test_one_that_gets_on_is_left_alone() -> None:
    with Watchdog(30) as watchdog:
        for _ in range(1000):
            watchdog.heard()
    with Watchdog(0):
        time.sleep(0.05)
