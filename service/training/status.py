"""How far the run is, for whoever looks from outside: runs/<run>/status.json."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from datetime import UTC, datetime
from types import TracebackType

import structlog

from service.artifacts import notes
from service.artifacts.notes import Attempt, Phase
from service.artifacts.runs import Run
from service.exits import ServiceError, Stopped
from service.outcome import add_facts
from service.settings.train import TrainSettings
from service.training.costs import Meter
from service.training.progress import Progress, best, ratio_of

log = structlog.get_logger(__name__)

GROWING = ("estimated_remaining_seconds", "hours", "cost", "expected_cost")
"""Of the status: what changes without a step."""
FINAL_WRITE_TIMEOUT = 5.0
"""Seconds that the end of the training waits at most for its last status to be written."""


class StatusReporter:
    """Writes the status every few seconds, in a thread of its own, when there is something new.

    So a store that is slow or gone costs the training nothing; it is warned about once.
    """

    def __init__(self, run: Run, settings: TrainSettings) -> None:
        self.progress = Progress()
        self.attempt: Attempt | None = None
        self.last_phase: Phase = "complete"
        self.meter = Meter(settings)
        self._run = run
        self._max_steps = settings.max_steps
        self._every = settings.status_seconds
        self._phase: Phase = "loading"
        self._checkpoint: notes.LastCheckpoint | None = None
        self._written: notes.Status | None = None
        self._failed = False
        self._ended = threading.Event()

    def __enter__(self) -> "StatusReporter":
        self._thread = threading.Thread(target=copy_context().run, args=(self._work,), name="status", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self._phase = self.last_phase if kind is None else "stopped" if issubclass(kind, Stopped) else "failed"
        self._ended.set()
        self._thread.join(FINAL_WRITE_TIMEOUT)
        add_facts(**self.meter.facts(self.progress.step))

    def enter(self, phase: Phase) -> None:
        """What the training does from now on, in one word."""
        self._phase = phase

    @contextmanager
    def during(self, phase: Phase) -> Iterator[None]:
        """Another phase for a while, within the one of now."""
        self._phase, before = phase, self._phase
        yield
        self._phase = before

    def committed(self, step: int, path: str) -> None:
        """The newest checkpoint in the store."""
        self._checkpoint = notes.LastCheckpoint(step=step, path=path)

    def facts(self) -> notes.Status:
        """The content of status.json but for its time."""
        step, points, measurements = self.progress.step, self.progress.points, self.progress.measurements
        costs = self.meter.facts(step)
        metrics: dict[str, float] = {}
        if points:
            metrics |= {"loss": points[-1].loss, "learningRate": points[-1].learning_rate}
        if measurements:
            ratio = ratio_of(measurements[-1], measurements[0])
            metrics |= {"heldOutLoss": measurements[-1].loss, "heldOutRatio": ratio}
        return notes.Status(
            run_id=self._run.run_id,
            attempt=self.attempt.attempt if self.attempt else "",
            phase=self._phase,
            step=step,
            max_steps=self._max_steps,
            progress_percentage=round(100 * step / self._max_steps, 1),
            estimated_remaining_seconds=self._remaining(step),
            seconds_per_step=costs.get("seconds_per_step"),
            hours=costs["hours"],
            cost=costs.get("cost"),
            expected_cost=costs.get("expected_cost"),
            metrics=metrics,
            best_step=best(measurements).step if measurements else None,
            last_checkpoint=self._checkpoint,
        )

    def _remaining(self, step: int) -> int | None:
        remaining = 0 if self._phase == "complete" else self.meter.remaining_seconds(step)
        return None if remaining is None else round(remaining)

    def _work(self) -> None:
        ended = False
        while not ended:
            self._write()
            ended = self._ended.wait(self._every)
        self._write()

    def _write(self) -> None:
        try:
            if self.attempt:
                self.meter.keep(self._run, self.attempt)
            self._write_status()
        except ServiceError as error:
            if not self._failed:
                log.warning("status not written; training goes on", reason=str(error))
            self._failed = True

    def _write_status(self) -> None:
        facts = self.facts()
        # What grows by itself says nothing new: a status that only grows older shows that the training no longer gets on.
        known = facts.model_copy(update=dict.fromkeys(GROWING))
        if known == self._written:
            return
        self._written = known
        now = datetime.now(UTC).replace(microsecond=0)
        facts.model_copy(update={"last_updated_time": now}).write(self._run.store, self._run.run_id)
