"""How far a run is, what it measured on the way, and what follows from that."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from service.diffusion.held_out import TIMESTEPS


class Point(NamedTuple):
    """Training, at a step: mean loss and gradient norm since the last point, and the learning rate then."""

    step: int
    loss: float
    gradient_norm: float
    learning_rate: float


class Measurement(NamedTuple):
    """Held-out loss at a step: of each of the fixed timesteps, the mean over the images."""

    step: int
    losses: tuple[float, ...]

    @property
    def loss(self) -> float:
        return sum(self.losses) / len(self.losses)


@dataclass
class Progress:
    step: int = 0
    points: list[Point] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "points": [tuple(point) for point in self.points],
            "measurements": [tuple(measurement) for measurement in self.measurements],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.step = state["step"]
        self.points = [Point(*point) for point in state["points"]]
        self.measurements = [Measurement(step, tuple(losses)) for step, losses in state["measurements"]]

    def lines(self) -> list[dict[str, Any]]:
        """Everything measured, by step, as metrics.jsonl has it."""
        training = [point._asdict() for point in self.points]
        held_out = [
            {
                "step": m.step,
                "held_out_loss": m.loss,
                "held_out_ratio": ratio,
                **{f"held_out_loss_{t}": loss for t, loss in zip(TIMESTEPS, m.losses, strict=True)},
            }
            for m, ratio in zip(self.measurements, ratios(self.measurements), strict=True)
        ]
        return sorted([*training, *held_out], key=lambda line: line["step"])


def ratio_of(measurement: Measurement, first: Measurement) -> float:
    """A measurement as a multiple of the first: the mean of the ratios of its timesteps, which differ in size by much."""
    shares = [loss / base for loss, base in zip(measurement.losses, first.losses, strict=True)]
    return sum(shares) / len(shares)


def ratios(measurements: Sequence[Measurement]) -> list[float]:
    return [ratio_of(measurement, measurements[0]) for measurement in measurements]


def best(measurements: Sequence[Measurement]) -> Measurement:
    """The lowest of them; of equals the first."""
    of = ratios(measurements)
    return measurements[of.index(min(of))]


def out_of_patience(measurements: Sequence[Measurement], patience: int) -> bool:
    """Whether the last `patience` measurements in a row were no better than one before them; never for 0."""
    if not patience or not measurements:
        return False
    return len(measurements) - 1 - measurements.index(best(measurements)) >= patience
