"""The decision about a LoRA, from what was measured of it alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.artifacts.kinds.evaluation import Finding, Outcome
from service.artifacts.kinds.measurements import Arrays, Measurements
from service.evaluation.blind import VOTES
from service.evaluation.criteria.adherence import ADHERENCE
from service.evaluation.criteria.bleed import BLEED
from service.evaluation.criteria.broken import BROKEN
from service.evaluation.criteria.champion import CHAMPION_ADHERENCE, CHAMPION_STYLE, FEATURES
from service.evaluation.criteria.cmmd import CMMD
from service.evaluation.criteria.criterion import Criterion
from service.evaluation.criteria.diversity import DIVERSITY
from service.evaluation.criteria.held_out import HELD_OUT
from service.evaluation.criteria.liveness import LIVENESS
from service.evaluation.criteria.memorisation import COPIES, MEMORISATION
from service.evaluation.criteria.similarity import SIMILARITY
from service.evaluation.criteria.style import STYLE
from service.evaluation.criteria.votes import BLIND_VOTES
from service.evaluation.sample import Sample
from service.settings.evaluate import EvaluateSettings

CRITERIA: tuple[Criterion, ...] = (
    LIVENESS,
    BROKEN,
    STYLE,
    CMMD,
    SIMILARITY,
    ADHERENCE,
    BLEED,
    DIVERSITY,
    MEMORISATION,
    COPIES,
    HELD_OUT,
)
"""In the order of the page and of the sentence that gives the reason."""

AGAINST_CHAMPION: tuple[Criterion, ...] = (CHAMPION_STYLE, CHAMPION_ADHERENCE)
"""Asked as well where another LoRA reigns, or this one at another strength."""

SEVERITY: dict[Outcome, int] = {"promote": 0, "hold": 1, "reject": 2}
VERBS: dict[Outcome, str] = {"promote": "Promoted", "hold": "Held", "reject": "Rejected"}


@dataclass(frozen=True)
class Decision:
    """outcome, and the reason for it in one sentence with the figures."""

    outcome: Outcome
    reason: str


def criteria(*, champion: bool) -> tuple[Criterion, ...]:
    """All that are asked. champion: whether there is one to compare with."""
    return CRITERIA + AGAINST_CHAMPION if champion else CRITERIA


def measure(sample: Sample) -> Arrays:
    """Asks the models everything that a criterion wants to know; returns the arrays of all criteria by name."""
    asked = criteria(champion=sample.champion is not None)
    return {name: np.asarray(array) for one in asked for name, array in one.measure(sample).items()}


def examine(measurements: Measurements, settings: EvaluateSettings) -> list[Finding]:
    """Holds each measurement against its threshold: a finding for each criterion, in their order."""
    asked = criteria(champion=FEATURES in measurements.arrays)
    if VOTES in measurements.arrays:
        asked += (BLIND_VOTES,)
    return [criterion.examine(measurements, settings) for criterion in asked]


def decide(findings: Sequence[Finding]) -> Decision:
    """The worst of what the findings say one by one, so that no gain in one can pay for a loss in another."""
    outcomes = [finding.outcome for finding in findings if finding.outcome is not None]
    outcome = max(outcomes, key=SEVERITY.__getitem__)
    reasons = [finding.clause for finding in findings if finding.outcome == outcome]
    return Decision(outcome, f"{VERBS[outcome]}: {_enumerate(reasons)}.")


def _enumerate(clauses: list[str]) -> str:
    return "; ".join(clauses[:-1]) + "; and " + clauses[-1] if len(clauses) > 1 else clauses[0]
