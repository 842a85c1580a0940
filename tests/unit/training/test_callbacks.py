"""What becomes of a snapshot: a checkpoint, for which older ones make room; and how long a stop took."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.artifacts.runs import Run
from service.storage.opening import open_store
from service.training.callbacks import report_grace
from service.training.checkpoints import committer, newest_checkpoint
from service.training.progress import Measurement, Progress
from service.training.status import StatusReporter
from tests.unit.training.building import settings_for


def test_the_newest_checkpoints_stay_and_that_of_the_best_step_and_every_so_many(tmp_path: Path) -> None:
    settings = settings_for(max_steps=12, keep_last=2, keep_every=6, work_dir=tmp_path / "work")
    run = Run(open_store(str(tmp_path / "artifacts")), "r")
    progress = Progress(11, [], [Measurement(0, (2.0,)), Measurement(3, (1.0,)), Measurement(9, (1.5,))])
    status = StatusReporter(run, settings)
    commit = committer(run, {"seed": 0}, progress=progress, settings=settings, on_commit=status.committed)
    (tmp_path / "snapshot").mkdir()
    for step in range(1, 12):
        (tmp_path / "snapshot" / "file").write_text(str(step))
        commit(tmp_path / "snapshot", step)
    kept = {path.parts[-3] for path in (tmp_path / "artifacts").rglob("MANIFEST.json")}
    assert kept == {f"step-{step:08d}" for step in (3, 6, 10, 11)}
    found = newest_checkpoint(run, {"seed": 0}, tmp_path)
    assert found is not None
    assert status.facts()["lastCheckpoint"] == {"step": 11, "path": found.path}


@pytest.mark.parametrize(("seconds", "level"), [(20.0, "info"), (89.0, "info"), (91.0, "warning")])
def test_a_stop_that_took_most_of_the_grace_time_is_warned_about(seconds: float, level: str) -> None:
    with capture_logs() as logs:
        report_grace(seconds, 120, step=7)
    [event] = logs
    assert (event["log_level"], event["seconds"], event["grace_seconds"], event["step"]) == (level, seconds, 120, 7)
