"""A run that gains nothing is not tried for ever, and one that gains a step is."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.artifacts.runs import Run
from service.exits import ExitCode, judge
from service.storage.opening import open_store
from service.training.attempts import Attempt, attempts, begin_attempt, in_a_row

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def noted(*steps: int) -> list[Attempt]:
    return [Attempt(attempt=str(n), step=step, started=NOON + timedelta(n)) for n, step in enumerate(steps)]


@given(st.lists(st.integers(0, 3), max_size=12), st.integers(0, 3))
def test_only_the_last_attempts_in_a_row_at_the_same_step_count(steps: list[int], step: int) -> None:
    count = in_a_row(noted(*steps), step)
    assert steps[len(steps) - count :] == [step] * count
    assert count == len(steps) or steps[-count - 1] != step


def test_attempts_without_a_step_gained_end_with_a_line_that_says_what_to_do(tmp_path: Path) -> None:
    run = Run(open_store(str(tmp_path)), "r")
    for _ in range(3):
        begin_attempt(run, 0, allowed=3)
    with pytest.raises(Exception, match="all began at step 0") as told:
        begin_attempt(run, 0, allowed=3)
    assert judge(told.value)[0] == ExitCode.BUG
    assert "delete runs/r/attempts" in str(told.value)
    assert len(attempts(run)) == 3


def test_a_step_gained_starts_the_count_anew(tmp_path: Path) -> None:
    run = Run(open_store(str(tmp_path)), "r")
    for step in (0, 0, 5, 5, 10):
        begin_attempt(run, step, allowed=3)
    assert [attempt.step for attempt in attempts(run)] == [0, 0, 5, 5, 10]


def test_the_pod_gives_the_attempt_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTEMPT_ID", "pod-1")
    run = Run(open_store(str(tmp_path)), "r")
    assert begin_attempt(run, 0, allowed=3).attempt == "pod-1"
    begin_attempt(run, 0, allowed=3)
    assert [attempt.attempt for attempt in attempts(run)] == ["pod-1", "pod-1"]


def test_a_note_that_cannot_be_read_stops_nobody(tmp_path: Path) -> None:
    run = Run(open_store(str(tmp_path)), "r")
    run.store.put("runs/r/attempts/x.json", b"{")
    assert begin_attempt(run, 0, allowed=1).step == 0
