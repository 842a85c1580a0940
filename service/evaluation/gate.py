"""The decision about a LoRA, from its measurements alone."""

from dataclasses import dataclass
from math import isfinite
from typing import Literal

from service.evaluation.metrics import Interval

Outcome = Literal["promote", "hold", "reject"]
SEVERITY: dict[Outcome, int] = {"promote": 0, "hold": 1, "reject": 2}
VERBS: dict[Outcome, str] = {"promote": "Promoted", "hold": "Held", "reject": "Rejected"}


@dataclass(frozen=True)
class Measurements:
    """What the gate looks at; more is better in each.

    liveness: share of the pairs that the LoRA changes, 0 to 1. style_gain: KID, base − LoRA. adherence_gain: CLIPScore points,
    LoRA − base, on the content of the prompts. held_out_gain: loss, base − LoRA.
    """

    liveness: float
    style_gain: Interval
    adherence_gain: Interval
    held_out_gain: Interval


@dataclass(frozen=True)
class Thresholds:
    """live_share: share of the pairs that a LoRA must change, 0 to 1. adherence_margin: CLIPScore points that it may lose."""

    live_share: float = 0.95
    adherence_margin: float = 1.0


@dataclass(frozen=True)
class Finding:
    """What one measurement says: the outcome that it alone would give, and why, as a clause with its figures."""

    outcome: Outcome
    clause: str


@dataclass(frozen=True)
class Decision:
    """outcome, and the reason for it in one sentence with the figures."""

    outcome: Outcome
    reason: str


@dataclass(frozen=True)
class Findings:
    """One finding a measurement."""

    liveness: Finding
    style: Finding
    adherence: Finding
    held_out: Finding

    def all(self) -> list[Finding]:
        return [self.liveness, self.style, self.adherence, self.held_out]


def decide(measurements: Measurements, thresholds: Thresholds) -> Decision:
    """The worst of what the measurements say one by one, so that no gain in one can pay for a loss in another."""
    findings = examine(measurements, thresholds).all()
    outcome = max((finding.outcome for finding in findings), key=SEVERITY.__getitem__)
    reasons = [finding.clause for finding in findings if finding.outcome == outcome]
    return Decision(outcome, f"{VERBS[outcome]}: {_enumerate(reasons)}.")


def examine(measurements: Measurements, thresholds: Thresholds) -> Findings:
    """Holds each measurement against its threshold."""
    return Findings(
        _liveness(measurements.liveness, thresholds.live_share),
        _style(measurements.style_gain),
        _adherence(measurements.adherence_gain, -thresholds.adherence_margin),
        _held_out(measurements.held_out_gain),
    )


def _liveness(share: float, needed: float) -> Finding:
    if not isfinite(share):
        return Finding("reject", f"the share of images that the LoRA changes is {share}")
    if share < needed:
        return Finding("reject", f"the LoRA changes {share:.1%} of the images where {needed:.1%} are needed")
    return Finding("promote", f"the LoRA changes {share:.1%} of the images")


def _style(gain: Interval) -> Finding:
    if not gain.finite:
        return Finding("reject", f"the style gain is not finite, {gain}")
    if gain.high <= 0:
        return Finding("reject", f"the style comes no nearer to the held-out images, gain {gain}")
    if gain.low <= 0:
        return Finding("hold", f"the style may come no nearer to the held-out images, gain {gain}")
    return Finding("promote", f"the style comes nearer to the held-out images, gain {gain}")


def _adherence(gain: Interval, floor: float) -> Finding:
    figures = f"CLIPScore {gain} where {floor:+.3g} is allowed"
    if not gain.finite:
        return Finding("reject", f"the adherence gain is not finite, {gain}")
    if gain.high < floor:
        return Finding("reject", f"the prompts are followed less, {figures}")
    if gain.low < floor:
        return Finding("hold", f"the prompts may be followed less, {figures}")
    return Finding("promote", f"the prompts are still followed, {figures}")


def _held_out(gain: Interval) -> Finding:
    """A veto only: the loss follows style faintly, so that an interval around 0 is what a good LoRA, too, may show."""
    if not gain.finite:
        return Finding("reject", f"the held-out loss is not finite, gain {gain}")
    if gain.high < 0:
        return Finding("hold", f"the held-out loss is higher than the base's, gain {gain}")
    return Finding("promote", f"the held-out loss is not credibly higher than the base's, gain {gain}")


def _enumerate(clauses: list[str]) -> str:
    return "; ".join(clauses[:-1]) + "; and " + clauses[-1] if len(clauses) > 1 else clauses[0]
