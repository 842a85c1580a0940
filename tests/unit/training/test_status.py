"""status.json: true, readable at any moment, and no burden."""

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.artifacts.notes import Attempt
from service.artifacts.runs import Run
from service.exits import Diverged, Stopped
from service.settings.train import TrainSettings
from service.storage.opening import open_store
from service.training.costs import Meter
from service.training.progress import Measurement, Point, Progress
from service.training.status import StatusReporter

SETTINGS = TrainSettings(max_steps=200, status_seconds=0.01, run_id="r")


def written(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "runs" / "r" / "status.json").read_text()))


def until(true: Callable[[], bool]) -> None:
    for _ in range(3000):
        if true():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it never came about")


def test_it_tells_how_far_the_run_is_and_what_was_measured(tmp_path: Path) -> None:
    status = StatusReporter(Run(open_store(str(tmp_path)), "r"), SETTINGS)
    status.attempt = Attempt(attempt="pod-1", step=0, started=datetime.now(UTC))
    first, later = Measurement(0, (0.4, 0.4, 0.4, 0.4)), Measurement(50, (0.2, 0.2, 0.2, 0.2))
    with status:
        status.enter("training")
        status.progress = Progress(50, [Point(50, 0.5, 1.0, 1e-4)], [first, later])
        status.committed(50, "runs/r/checkpoints/step-00000050/a")
        until(lambda: (tmp_path / "runs" / "r" / "status.json").exists() and written(tmp_path)["step"] == 50)
        found = written(tmp_path)
    assert found["phase"] == "training"
    assert (found["runId"], found["attempt"], found["maxSteps"]) == ("r", "pod-1", 200)
    assert (found["progressPercentage"], found["bestStep"]) == (25.0, 50)
    assert found["metrics"] == {"loss": 0.5, "learningRate": 1e-4, "heldOutLoss": 0.2, "heldOutRatio": 0.5}
    assert found["lastCheckpoint"] == {"step": 50, "path": "runs/r/checkpoints/step-00000050/a"}
    assert (found["estimatedRemainingSeconds"], found["cost"]) == (None, None)
    assert datetime.fromisoformat(found["lastUpdatedTime"]).tzinfo is not None


def test_it_tells_what_the_run_costs_and_will(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"price_per_hour": 3.0})
    seconds = iter([0.0, *(100.0 + step for step in range(16)), *[115.0] * 1000])
    status = StatusReporter(Run(open_store(str(tmp_path)), "r"), settings)
    status.meter = Meter(settings, before=3485.0, clock=lambda: next(seconds))
    for step in range(1, 17):
        status.meter.step_done()
        status.progress.step = step
    facts = status.facts()
    assert facts.seconds_per_step == 1
    assert facts.estimated_remaining_seconds == 200 - 16
    assert (facts.hours, facts.cost) == (1, 3)
    assert facts.expected_cost == pytest.approx(3 + 3 * 184 / 3600, abs=1e-4)


@pytest.mark.parametrize(
    ("error", "phase"), [(None, "complete"), (Stopped("told"), "stopped"), (Diverged("nan"), "failed")]
)
def test_its_last_word_is_how_the_training_ended(error: Exception | None, phase: str, tmp_path: Path) -> None:
    try:
        with StatusReporter(Run(open_store(str(tmp_path)), "r"), SETTINGS):
            if error is not None:
                raise error
    except (Stopped, Diverged):
        pass
    assert written(tmp_path)["phase"] == phase


def test_it_grows_old_when_the_training_does_not_get_on(tmp_path: Path) -> None:
    with capture_logs() as logs, StatusReporter(Run(open_store(str(tmp_path)), "r"), SETTINGS) as status:
        status.progress = Progress(50)
        until(lambda: (tmp_path / "runs" / "r" / "status.json").exists() and written(tmp_path)["step"] == 50)
        before = (tmp_path / "runs" / "r" / "status.json").stat().st_mtime_ns
        threading.Event().wait(0.2)
        assert (tmp_path / "runs" / "r" / "status.json").stat().st_mtime_ns == before
    assert logs == []


def test_a_store_that_fails_is_told_of_once_and_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with (
        capture_logs() as logs,
        StatusReporter(Run(open_store(str(tmp_path / "file" / "below")), "r"), SETTINGS) as status,
    ):
        for step in range(5):
            status.progress = Progress(step)
            threading.Event().wait(0.05)
    assert [entry["log_level"] for entry in logs] == ["warning"]
