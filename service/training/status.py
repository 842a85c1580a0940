"""How far the run is, for whoever looks from outside: runs/<run>/status.json."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from datetime import UTC, datetime
from types import TracebackType

import structlog

from service.artifacts import notes
from service.artifacts.notes import Phase
from service.artifacts.runs import Run
from service.exits import ServiceError, Stopped
from service.settings.train import TrainSettings
from service.training.progress import Progress, best, ratio_of

log = structlog.get_logger(__name__)

FINAL_WRITE_TIMEOUT = 5.0
"""Seconds that the end of the training waits at most for its last status to be written."""


class StatusReporter:
    """Writes the status every few seconds, in a thread of its own, when there is something new.

    So a store that is slow or gone costs the training nothing; it is warned about once.
    """

    def __init__(self, run: Run, settings: TrainSettings) -> None:
        self.progress = Progress()
        self.attempt = ""
        self._run = run
        self._max_steps = settings.max_steps
        self._every = settings.status_seconds
        self._phase: Phase = "loading"
        self._checkpoint: notes.LastCheckpoint | None = None
        self._pace_start: tuple[float, int] | None = None
        self._written: notes.Status | None = None
        self._failed = False
        self._ended = threading.Event()

    def __enter__(self) -> "StatusReporter":
        self._thread = threading.Thread(target=copy_context().run, args=(self._work,), name="status", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self._phase = "complete" if kind is None else "stopped" if issubclass(kind, Stopped) else "failed"
        self._ended.set()
        self._thread.join(FINAL_WRITE_TIMEOUT)

    def enter(self, phase: Phase) -> None:
        """What the training does from now on, in one word."""
        self._phase = phase
        if phase == "training" and self._pace_start is None:
            self._pace_start = (time.monotonic(), self.progress.step)

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
        metrics: dict[str, float] = {}
        if points:
            metrics |= {"loss": points[-1].loss, "learningRate": points[-1].learning_rate}
        if measurements:
            ratio = ratio_of(measurements[-1], measurements[0])
            metrics |= {"heldOutLoss": measurements[-1].loss, "heldOutRatio": ratio}
        return notes.Status(
            run_id=self._run.run_id,
            attempt=self.attempt,
            phase=self._phase,
            step=step,
            max_steps=self._max_steps,
            progress_percentage=round(100 * step / self._max_steps, 1),
            estimated_remaining_seconds=self._remaining(step),
            metrics=metrics,
            best_step=best(measurements).step if measurements else None,
            last_checkpoint=self._checkpoint,
        )

    def _remaining(self, step: int) -> int | None:
        """By the pace of this attempt; None before its first step."""
        if self._phase == "complete":
            return 0
        if self._pace_start is None or step <= self._pace_start[1]:
            return None
        began, first = self._pace_start
        return round((time.monotonic() - began) / (step - first) * (self._max_steps - step))

    def _work(self) -> None:
        ended = False
        while not ended:
            self._write()
            ended = self._ended.wait(self._every)
        self._write()

    def _write(self) -> None:
        facts = self.facts()
        # The rest alone says nothing new: a status that only grows older shows that the training no longer gets on.
        known = facts.model_copy(update={"estimated_remaining_seconds": None})
        if known == self._written:
            return
        self._written = known
        now = datetime.now(UTC).replace(microsecond=0)
        try:
            facts.model_copy(update={"last_updated_time": now}).write(self._run.store, self._run.run_id)
        except ServiceError as error:
            if not self._failed:
                log.warning("status not written; training goes on", reason=str(error))
            self._failed = True
