"""What a run costs over all its attempts, and that a limit ends it without costing it anything else."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from structlog.testing import capture_logs

from service.artifacts.notes import Attempt
from service.artifacts.runs import Run
from service.settings.train import TrainSettings
from service.storage.opening import open_store
from service.training import measuring
from service.training.callbacks import Costs
from service.training.costs import HOUR, WARM_UP, Capped, Meter, spent_before
from service.training.processes.coordinator import Coordinator
from service.training.trainer import Callback, Trainer
from tests.unit.training.building import (
    KeptSnapshots,
    checkpoints_in,
    settings_for,
    trained_state,
    trainer_for,
)


class Clock:
    """Seconds that pass only when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class StepTakes(Callback):
    """Each step takes so many seconds of the clock."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.clock, self.seconds = clock, seconds

    def on_step_end(self, _: Trainer) -> None:
        self.clock.now += self.seconds


def limited(clock: Clock, settings: TrainSettings) -> list[Callback]:
    """The job's own callback, in a world where each step takes an hour."""
    meter = Meter(settings, clock=clock)
    return [StepTakes(clock, HOUR), Costs(meter, Coordinator(Accelerator(cpu=True)), settings)]


def test_the_pace_leaves_out_the_first_steps_of_an_attempt() -> None:
    clock = Clock()
    meter = Meter(settings_for(max_steps=100), clock=clock)
    for _ in range(WARM_UP):
        clock.now += 60  # compiling
        meter.step_done()
        assert meter.seconds_per_step is None
    for _ in range(10):
        clock.now += 2
        meter.step_done()
    assert meter.seconds_per_step == 2
    assert meter.remaining_seconds(WARM_UP + 10) == 2 * (100 - WARM_UP - 10)


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0.01, 1000))
def test_the_cost_is_that_of_all_attempts(before: float, now: float, price: float) -> None:
    clock = Clock()
    meter = Meter(settings_for(price_per_hour=price), before, clock)
    clock.now = now
    assert meter.cost == pytest.approx(price * (before + now) / 3600)


@pytest.mark.parametrize(
    ("limits", "hours", "reached"),
    [
        ({"max_hours": 2}, 1.99, None),
        ({"max_hours": 2}, 2.0, "TRAIN_MAX_HOURS=2"),
        ({"max_cost": 5, "price_per_hour": 2.5}, 1.99, None),
        ({"max_cost": 5, "price_per_hour": 2.5}, 2.0, "TRAIN_MAX_COST=5"),
        ({"price_per_hour": 2.5}, 1e6, None),
    ],
)
def test_a_limit_counts_the_attempts_before(limits: dict[str, float], hours: float, reached: str | None) -> None:
    clock = Clock()
    meter = Meter(settings_for(**limits), before=HOUR, clock=clock)
    clock.now = (hours - 1) * HOUR
    assert meter.limit_reached() == reached


def test_a_limit_of_cost_without_a_price_is_refused() -> None:
    with pytest.raises(ValidationError, match="says nothing without PRICE_PER_HOUR"):
        TrainSettings(max_cost=5)


def test_the_account_survives_attempts_that_are_killed_and_never_falls(tmp_path: Path) -> None:
    run = Run(open_store(str(tmp_path)), "r")
    totals = []
    for number in range(3):  # none of them comes to an end
        clock = Clock()
        meter = Meter(settings_for(), spent_before(run), clock)
        attempt = Attempt(attempt="pod", step=0, started=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(number))
        for _ in range(4):
            clock.now += 15
            meter.keep(run, attempt)
            totals.append(spent_before(run))
            assert meter.hours == pytest.approx(totals[-1] / HOUR)
    assert totals == [15.0 * (1 + n) for n in range(12)]


def test_notes_of_an_older_version_count_for_no_time(tmp_path: Path) -> None:
    run = Run(open_store(str(tmp_path)), "r")
    old = {"schema_version": 1, "attempt": "a", "step": 0, "started": "2026-01-01T00:00:00Z"}
    run.store.put("runs/r/attempts/20260101T000000000000-a.json", json.dumps(old).encode())
    assert spent_before(run) == 0


@pytest.mark.parametrize("options", [{}, {"ema_decay": 0.9, "publish": "best"}])
def test_a_run_that_was_capped_between_two_measurements_goes_on_to_the_bits_of_one_that_was_not(
    options: dict[str, object], tmp_path: Path
) -> None:
    whole = trainer_for(settings_for(validate_every=3, **options))
    whole.fit([])
    settings = settings_for(validate_every=3, max_hours=4, **options)
    capped, kept = trainer_for(settings), KeptSnapshots(tmp_path)
    with pytest.raises(Capped, match="TRAIN_MAX_HOURS=4"):
        capped.fit([checkpoints_in(kept, settings), *limited(Clock(), settings)])
    assert kept.steps == [3, 4]
    published = capped.install_best_so_far([])
    assert published.step in (3, 4)
    assert [measurement.step for measurement in capped.progress.measurements] == [0, 3, 4]

    resumed = trainer_for(settings_for(validate_every=3, **options))
    resumed.resume(tmp_path / "4")
    resumed.fit([])
    assert resumed.progress.measurements == whole.progress.measurements
    assert resumed.install_result() == whole.install_result()
    expected = trained_state(whole)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in trained_state(resumed).items())


def test_the_best_so_far_is_published_and_never_the_base_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    losses = iter([1.0, 3.0, 2.0, 4.0])  # before the first step, and at steps 1, 2 and 3: none is better than the base
    monkeypatch.setattr(measuring, "held_out_losses", lambda *_, **__: torch.full((1, 4), next(losses)))
    settings = settings_for(validate_every=1, max_hours=3)
    worse = trainer_for(settings)
    with pytest.raises(Capped):
        worse.fit([checkpoints_in(KeptSnapshots(tmp_path / "a"), settings), *limited(Clock(), settings)])
    newest = trained_state(worse)
    assert worse.install_best_so_far([]).step == 3
    assert all(torch.equal(tensor, newest[name]) for name, tensor in trained_state(worse).items())

    losses = iter([4.0, 2.0, 1.0, 3.0])
    better = trainer_for(settings)
    with pytest.raises(Capped):
        better.fit([checkpoints_in(KeptSnapshots(tmp_path / "b"), settings), *limited(Clock(), settings)])
    assert better.install_best_so_far([]).step == 2


def test_a_limit_that_is_reached_with_the_last_step_ends_nothing_early(tmp_path: Path) -> None:
    settings = settings_for(max_hours=6)
    trainer = trainer_for(settings)
    assert trainer.fit([checkpoints_in(KeptSnapshots(tmp_path), settings), *limited(Clock(), settings)]).step == 6


def test_the_log_tells_the_costs_once_the_pace_is_known_and_at_each_measurement() -> None:
    settings = settings_for(max_steps=12, validate_every=4, price_per_hour=2)
    with capture_logs() as logs:
        trainer_for(settings).fit(limited(Clock(), settings))
    told = [entry for entry in logs if entry["event"] == "costs"]
    assert [entry["step"] for entry in told] == [4, WARM_UP + 1, 8, 12]
    assert (told[1]["cost"], told[1]["expected_cost"]) == (12, 24)
    assert told[-1]["cost"] == told[-1]["expected_cost"] == 24
