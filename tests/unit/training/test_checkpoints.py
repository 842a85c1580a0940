"""Checkpoints: found and believed only when they fit, and deleted when they are no longer needed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.artifacts.kinds.checkpoint import newest_first
from service.artifacts.notes import LastCheckpoint
from service.artifacts.runs import Run
from service.exits import BadConfiguration
from service.settings.identity import check_identity, identity
from service.settings.train import TrainSettings
from service.storage.opening import open_store
from service.training.checkpoints import commit, committer, newest_checkpoint
from service.training.progress import Measurement, Progress
from service.training.status import StatusReporter
from tests.unit.training.building import settings_for


@given(st.lists(st.integers(0, 99_999_999), max_size=20))
def test_checkpoints_are_tried_from_the_newest_to_the_oldest(steps: list[int]) -> None:
    paths = [f"runs/a/checkpoints/step-{step:08d}/{number:012x}" for number, step in enumerate(steps)]
    ordered = newest_first([*paths, "runs/a/checkpoints/other"])
    assert sorted(ordered) == sorted(paths)
    found = [int(path.split("step-")[1][:8]) for path in ordered]
    assert found == sorted(found, reverse=True)


def test_a_run_without_checkpoints_starts_at_the_beginning(tmp_path: Path) -> None:
    assert newest_checkpoint(Run(open_store(str(tmp_path)), "new"), {}, tmp_path) is None


def test_a_checkpoint_of_other_settings_is_refused_with_what_differs(tmp_path: Path) -> None:
    run = Run(open_store(str(tmp_path / "artifacts")), "r")
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "file").write_bytes(b"x")
    commit(run, tmp_path / "checkpoint", 5, identity(settings_for(), dataset="datasets/a/1"))
    wanted = identity(settings_for(learning_rate=1e-3), dataset="datasets/a/1")
    with pytest.raises(BadConfiguration, match=r"TRAIN_LEARNING_RATE \(0.01 there, 0.001 now\)"):
        newest_checkpoint(run, wanted, tmp_path)


def test_where_things_are_kept_and_how_often_does_not_make_another_lora() -> None:
    here = settings_for(run_id="a", artifacts_uri="s3://b/c", checkpoint_every=7)
    check_identity(
        TrainSettings, identity(here, dataset="datasets/a/1"), identity(settings_for(), dataset="datasets/a/1"), "here"
    )


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
    assert status.facts().last_checkpoint == LastCheckpoint(step=11, path=found.path)
