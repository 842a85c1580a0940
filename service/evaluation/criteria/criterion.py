"""What a criterion is, and the ways in which one may judge."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

from numpy.typing import ArrayLike

from service.artifacts.kinds.evaluation import Finding, Interval, Missing, Outcome, Unit
from service.artifacts.kinds.measurements import Measurements
from service.evaluation.missing import Doubt, missing
from service.evaluation.sample import Sample
from service.settings.evaluate import EvaluateSettings


@dataclass(frozen=True)
class Figures:
    """What was measured of both sides; `base` is None where only the LoRA has a figure, `gain` where that alone decides.

    base: of what the LoRA is compared with, which may be the champion.

    doubt: where the width of the gain's interval comes from, of a gain that more prompts or images would tell better.
    missing: what would decide it, where no doubt tells.
    """

    base: float | None
    lora: float
    gain: Interval | None = None
    doubt: Doubt | None = None
    missing: Missing | None = None

    @property
    def finite(self) -> bool:
        """Whether what decides can be compared with a threshold."""
        return self.gain.finite if self.gain else isfinite(self.lora)


@dataclass(frozen=True)
class Rule:
    """How figures are held against a threshold. needed: what promotes, where {} is the threshold."""

    needed: str
    judge: Callable[[Figures, float], Outcome]


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """One measurement and what it says. To measure one thing more is to write one of these and name it in `gate.CRITERIA`.

    measure: what models say of the sample, as arrays by name; they are stored, and criteria may share one by its name.
    figures: what follows from the stored arrays, without a model; None where there was nothing to measure, which holds what
    has a threshold. threshold: by the settings; None only informs.
    clauses: for each outcome that the rule can give, for figures that are not finite (which reject), and for none where
    that can be, a part of a sentence in which {base}, {lora}, {gain} and {threshold} are replaced.
    against: what the LoRA is compared with.
    """

    name: str
    title: str
    explanation: str
    measure: Callable[[Sample], Mapping[str, ArrayLike]]
    figures: Callable[[Measurements, EvaluateSettings], Figures | None]
    threshold: Callable[[EvaluateSettings], float | None]
    rule: Rule
    clauses: Mapping[Outcome | Literal["not finite", "not measured"], str]
    unit: Unit = ""
    against: Literal["base", "champion"] = "base"

    def examine(self, measurements: Measurements, settings: EvaluateSettings) -> Finding:
        """What this criterion finds in the measurements."""
        return self.finding(self.figures(measurements, settings), self.threshold(settings))

    def finding(self, figures: Figures | None, threshold: float | None) -> Finding:
        """What the figures say when they are held against the threshold."""
        common = self._common(figures, threshold)
        if threshold is None:
            return Finding(**common, needed="", outcome=None, clause="")
        needed = self.rule.needed.format(self._shown(threshold))
        if figures is None:
            return Finding(**common, needed=needed, outcome="hold", clause=self.clauses["not measured"])
        outcome: Outcome = self.rule.judge(figures, threshold) if figures.finite else "reject"
        clause = self.clauses[outcome if figures.finite else "not finite"]
        said = clause.format(base=figures.base, lora=figures.lora, gain=figures.gain, threshold=threshold)
        lacking = None
        if outcome == "hold":
            lacking = figures.missing
            if figures.gain and figures.doubt:
                lacking = missing(figures.gain, threshold, figures.doubt)
        if lacking:
            said = f"{said} ({lacking})"
        return Finding(**common, needed=needed, outcome=outcome, clause=said, missing=lacking)

    def _common(self, figures: Figures | None, threshold: float | None) -> dict[str, Any]:
        return {
            "name": self.name,
            "title": self.title,
            "explanation": self.explanation,
            "unit": self.unit,
            "base": figures and figures.base,
            "lora": figures and figures.lora,
            "gain": figures and figures.gain,
            "threshold": threshold,
            "against": self.against,
        }

    def _shown(self, threshold: float) -> str:
        if self.unit == "share":
            return f"{100 * threshold:.3g}%"
        if self.unit == "count":
            return f"{threshold:.0f}"
        return f"{threshold:+.3g}" if threshold else "0"


def at_most_lost(margin: float | None) -> float | None:
    """The threshold of a gain of which `margin` may be lost; None, which only informs, without a margin."""
    return None if margin is None else -margin


def _gain(figures: Figures) -> Interval:
    if figures.gain is None:
        raise TypeError("this rule judges an interval, and the criterion has none")
    return figures.gain


def _at_least(figures: Figures, threshold: float) -> Outcome:
    return "promote" if figures.lora >= threshold else "reject"


def _above(figures: Figures, threshold: float) -> Outcome:
    gain = _gain(figures)
    return "promote" if gain.low > threshold else "hold" if gain.high > threshold else "reject"


def _not_below(figures: Figures, threshold: float) -> Outcome:
    gain = _gain(figures)
    return "promote" if gain.low >= threshold else "hold" if gain.high >= threshold else "reject"


def _not_credibly_below(figures: Figures, threshold: float) -> Outcome:
    return "hold" if _gain(figures).high < threshold else "promote"


def _at_most(figures: Figures, threshold: float) -> Outcome:
    return "promote" if figures.lora <= threshold else "reject"


AT_LEAST = Rule("at least {}", _at_least)
"""The LoRA's own figure reaches the threshold; there is no doubt about it, so it is never held."""

AT_MOST = Rule("at most {}", _at_most)
"""The LoRA's own figure stays within the threshold; there is no doubt about it, so it is never held."""

ABOVE = Rule("interval above {}", _above)
"""The whole interval lies above the threshold; wholly at or below it rejects."""

NOT_BELOW = Rule("interval above {}", _not_below)
"""The whole interval lies at or above the threshold; wholly below it rejects: for what may be lost up to a margin."""

NOT_CREDIBLY_BELOW = Rule("interval not wholly below {}", _not_credibly_below)
"""A veto only: holds where the whole interval lies below the threshold."""
