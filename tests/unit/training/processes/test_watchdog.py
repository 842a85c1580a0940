"""A training that hangs ends, and shows where; one that gets on is left alone."""

import io
import json
import os
import sys
import threading
import time
from pathlib import Path

from service.exits import ExitCode
from service.logs import configure_logs
from service.training.processes import watchdog
from service.training.processes.watchdog import Watchdog
from tests.integration.chain import SERVER


def hang(said: Path, seconds: float) -> None:
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
    os.environ["OUTCOME_FILE"] = f"{said}-outcome"
    configure_logs("json", run_id="r")
    with Watchdog(seconds):
        hanging_here()


class Clogged(io.StringIO):
    """A standard error that nobody reads any more."""

    def write(self, _: str) -> int:
        threading.Event().wait(120)
        return 0


def hang_writing(said: Path, seconds: float) -> None:
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
    configure_logs("json")
    watchdog.REPORT_TIMEOUT = 0.2
    sys.stderr = Clogged()
    with Watchdog(seconds):
        sys.stderr.write("…")


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
    outcome = json.loads((tmp_path / "said-outcome").read_text())
    assert (outcome["job"], outcome["run_id"], outcome["exit_name"]) == ("train", "r", "STALLED")
    assert "TRAIN_STALL_SECONDS=0.3" in outcome["error"]


def test_one_that_hangs_with_the_lock_of_the_log_ends_all_the_same(tmp_path: Path) -> None:
    process = SERVER.Process(target=hang_writing, args=(tmp_path / "said", 0.3))
    process.start()
    process.join(120)
    assert process.exitcode == ExitCode.STALLED
    assert "hang_writing" in (tmp_path / "said").read_text()


def test_one_that_gets_on_is_left_alone() -> None:
    with Watchdog(30) as watchdog:
        for _ in range(1000):
            watchdog.heartbeat()
    with Watchdog(0):
        time.sleep(0.05)
