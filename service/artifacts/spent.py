"""How long the stages of a retrain take, added up over all its starts in a note of the run."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from service.artifacts.notes import Spent
from service.artifacts.runs import Run
from service.exits import BadData, Stopped
from service.storage.interface import NotFound


class Stopwatch:
    """Times the stages of this process. What it counts before the run is known is noted with the first stage after that."""

    def __init__(self) -> None:
        self._unsaved: Counter[str] = Counter()

    @contextmanager
    def stage(self, name: str, run: Run | None = None) -> Iterator[None]:
        """Counts the time until the end of the block, also of one that was told to stop."""
        began = time.monotonic()
        try:
            yield
        except Stopped:
            self._add(name, began, run)
            raise
        self._add(name, began, run)

    def _add(self, name: str, began: float, run: Run | None) -> None:
        self._unsaved[name] += time.monotonic() - began  # type: ignore[assignment]
        if run is not None:
            total = Counter(spent(run)) + self._unsaved
            Spent(seconds={stage: round(seconds, 1) for stage, seconds in total.items()}).write(run.store, run.run_id)
            self._unsaved.clear()


def spent(run: Run) -> dict[str, float]:
    """Seconds by stage, as far as they are noted."""
    with suppress(NotFound, BadData):
        return Spent.read(run.store, run.run_id).seconds
    return {}
