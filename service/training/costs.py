"""What a training costs: the time of all attempts at it, what that comes to in money, and when it has to end for it."""

import time
from collections.abc import Callable

from service.artifacts import layout
from service.artifacts.notes import Attempt
from service.artifacts.runs import Run
from service.exits import Stopped
from service.settings.train import TrainSettings
from service.training.attempts import attempts

WARM_UP = 5
"""Steps of an attempt that say nothing of its pace: kernels are chosen, code is compiled, caches are cold."""
HOUR = 3600


class Capped(Stopped):
    """TRAIN_MAX_HOURS or TRAIN_MAX_COST is reached: the training ends like one that was told to stop. Its text says which."""


def spent_before(run: Run) -> float:
    """Seconds of all attempts that have noted theirs."""
    return sum(attempt.seconds for attempt in attempts(run))


class Meter:
    """The time of a run: of its attempts before, in seconds, and of this one from now on; and the pace of its steps.

    Each attempt keeps its own time in a note of its own, so that the sum never falls, whoever is killed; what is lost is
    the time since the last writing, TRAIN_STATUS_SECONDS at most.
    """

    def __init__(
        self, settings: TrainSettings, before: float = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._before = before
        self._clock = clock
        self._began = clock()
        self._steps_done = 0
        self._warm: float | None = None
        self._newest = 0.0

    def step_done(self) -> None:
        """A step of this attempt is done, with all that was due at it."""
        self._steps_done += 1
        self._newest = self._clock()
        if self._steps_done == WARM_UP:
            self._warm = self._newest

    @property
    def just_warm(self) -> bool:
        """Whether the pace is known since the last step."""
        return self._steps_done == WARM_UP + 1

    @property
    def seconds_per_step(self) -> float | None:
        """With the measuring, saving and drawing between the steps; None until the warm-up is over."""
        if self._warm is None or self._steps_done == WARM_UP:
            return None
        return (self._newest - self._warm) / (self._steps_done - WARM_UP)

    def remaining_seconds(self, step: int) -> float | None:
        """From `step` to the last one, by the pace; None until that is known."""
        pace = self.seconds_per_step
        return None if pace is None else pace * (self._settings.max_steps - step)

    @property
    def hours(self) -> float:
        """Of all attempts together, up to now."""
        return (self._before + self.own_seconds) / HOUR

    @property
    def own_seconds(self) -> float:
        """Of this attempt, up to now."""
        return self._clock() - self._began

    @property
    def cost(self) -> float | None:
        """Of all attempts together, up to now; None without PRICE_PER_HOUR."""
        price = self._settings.price_per_hour
        return None if price is None else price * self.hours

    def expected_cost(self, step: int) -> float | None:
        """Of the whole run, when it goes on at its pace; None without PRICE_PER_HOUR, or until the pace is known."""
        price, remaining = self._settings.price_per_hour, self.remaining_seconds(step)
        return None if price is None or remaining is None else price * (self.hours + remaining / HOUR)

    def limit_reached(self) -> str | None:
        """Which limit is reached, as it was set; None while none is."""
        settings, cost = self._settings, self.cost
        if settings.max_hours is not None and self.hours >= settings.max_hours:
            return f"TRAIN_MAX_HOURS={settings.max_hours:g}"
        if settings.max_cost is not None and cost is not None and cost >= settings.max_cost:
            return f"TRAIN_MAX_COST={settings.max_cost:g}"
        return None

    def keep(self, run: Run, attempt: Attempt) -> None:
        """Writes the note of this attempt, with its time."""
        noted = attempt.model_copy(update={"seconds": round(self.own_seconds, 3)})
        run.store.put(layout.AttemptNote(run.run_id, attempt.name).path, noted.to_bytes())

    def facts(self, step: int) -> dict[str, float]:
        """What it costs, for logs and outcome; only what is known."""
        known = {
            "hours": self.hours,
            "seconds_per_step": self.seconds_per_step,
            "remaining_seconds": self.remaining_seconds(step),
            "cost": self.cost,
            "expected_cost": self.expected_cost(step),
        }
        return {name: round(fact, 4) for name, fact in known.items() if fact is not None}
