from collections.abc import Mapping
from dataclasses import replace
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.artifacts.kinds.evaluation import Interval
from service.evaluation.criteria.criterion import Figures
from service.evaluation.gate import CRITERIA, SEVERITY, Decision, decide
from service.settings.evaluate import EvaluateSettings

SETTINGS = EvaluateSettings(live_share=0.95, adherence_margin=1.0)
GAINS = ("style", "adherence", "held_out")

Measured = Mapping[str, Figures]


def gained(value: float, low: float, high: float) -> Figures:
    return Figures(0.0, value, Interval(value, low, high))


GOOD: Measured = {
    "liveness": Figures(None, 1.0),
    "style": gained(0.12, 0.08, 0.16),
    "adherence": gained(-0.2, -0.7, 0.3),
    "held_out": gained(0.01, -0.002, 0.02),
}

gains = st.lists(st.floats(-3, 3), min_size=3, max_size=3).map(
    lambda ends: gained(sorted(ends)[1], min(ends), max(ends))
)
measurements = st.fixed_dictionaries(
    {"liveness": st.builds(Figures, st.none(), st.floats(0, 1)), **dict.fromkeys(GAINS, gains)}
)
improvements = st.floats(0, 5)


def decision(measured: Measured) -> Decision:
    return decide([one.finding(measured[one.name], one.threshold(SETTINGS)) for one in CRITERIA])


def outcome(measured: Measured) -> str:
    return decision(measured).outcome


def test_a_live_lora_that_gains_style_and_keeps_to_its_prompts_is_promoted() -> None:
    assert outcome(GOOD) == "promote"


def test_a_lora_that_changes_nothing_is_rejected_with_the_figures() -> None:
    found = decision({**GOOD, "liveness": Figures(None, 0.125)})
    assert found.outcome == "reject"
    assert "12.5%" in found.reason
    assert "95.0%" in found.reason


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        (gained(-0.02, -0.04, -0.01), "reject"),
        (gained(-0.02, -0.04, 0.0), "reject"),
        (gained(0.02, -0.01, 0.04), "hold"),
        (gained(0.02, 0.0, 0.04), "hold"),
        (gained(0.02, 0.01, 0.04), "promote"),
    ],
)
def test_the_style_must_gain_for_certain(style: Figures, expected: str) -> None:
    assert outcome({**GOOD, "style": style}) == expected


@pytest.mark.parametrize(
    ("adherence", "expected"),
    [
        (gained(-3.0, -4.0, -1.1), "reject"),
        (gained(-1.5, -4.0, -1.0), "hold"),
        (gained(-0.5, -1.1, 0.0), "hold"),
        (gained(-0.5, -1.0, 0.0), "promote"),
        (gained(2.0, 1.0, 3.0), "promote"),
    ],
)
def test_adherence_may_lose_no_more_than_the_margin(adherence: Figures, expected: str) -> None:
    assert outcome({**GOOD, "adherence": adherence}) == expected


def test_a_credibly_higher_held_out_loss_holds_and_an_undecided_one_does_not() -> None:
    assert outcome({**GOOD, "held_out": gained(-0.02, -0.03, -0.01)}) == "hold"
    assert outcome({**GOOD, "held_out": gained(-0.02, -0.03, 0.01)}) == "promote"


@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_a_measurement_that_is_not_finite_rejects(value: float) -> None:
    assert outcome({**GOOD, "liveness": Figures(None, value)}) == "reject"
    for name in GAINS:
        for end in ("value", "low", "high"):
            assert outcome({**GOOD, name: changed(GOOD[name], **{end: value})}) == "reject"


@given(measurements)
def test_nothing_is_promoted_while_an_interval_straddles_its_threshold(measured: Measured) -> None:
    style, adherence = measured["style"].gain, measured["adherence"].gain
    assert style is not None
    assert adherence is not None
    if style.low <= 0 <= style.high or adherence.low < -1.0 <= adherence.high:
        assert outcome(measured) != "promote"


@given(measurements, st.fixed_dictionaries(dict.fromkeys(GOOD, improvements)))
def test_a_better_measurement_never_worsens_the_outcome(measured: Measured, by: Mapping[str, float]) -> None:
    better = {name: shifted(figures, by[name]) for name, figures in measured.items()}
    assert SEVERITY[decision(better).outcome] <= SEVERITY[decision(measured).outcome]


@given(measurements, st.sampled_from(GAINS), st.floats(0, 1))
def test_a_higher_lower_end_alone_never_worsens_the_outcome(measured: Measured, name: str, share: float) -> None:
    gain = measured[name].gain
    assert gain is not None
    narrower = changed(measured[name], low=gain.low + share * (gain.value - gain.low))
    assert SEVERITY[decision({**measured, name: narrower}).outcome] <= SEVERITY[decision(measured).outcome]


@given(measurements)
def test_the_reason_is_one_sentence_with_figures(measured: Measured) -> None:
    reason = decision(measured).reason
    assert reason.endswith(".")
    assert ". " not in reason
    assert "\n" not in reason
    assert any(character.isdigit() for character in reason)


@given(measurements)
def test_a_criterion_without_a_threshold_only_informs(measured: Measured) -> None:
    findings = [one.finding(measured[one.name], one.threshold(SETTINGS)) for one in CRITERIA]
    informing = [one.finding(measured[one.name], None) for one in CRITERIA]
    assert decide(findings + informing) == decide(findings)
    assert all(finding.outcome is None and not finding.needed for finding in informing)


@given(measurements)
def test_the_decision_is_the_worst_that_a_finding_says(measured: Measured) -> None:
    findings = [one.finding(measured[one.name], one.threshold(SETTINGS)) for one in CRITERIA]
    decided = decide(findings)
    assert SEVERITY[decided.outcome] == max(SEVERITY[finding.outcome or "promote"] for finding in findings)
    assert all((finding.clause in decided.reason) == (finding.outcome == decided.outcome) for finding in findings)


def test_every_criterion_has_a_name_of_its_own_and_a_word_for_whatever_it_may_say() -> None:
    assert len({one.name for one in CRITERIA}) == len(CRITERIA)
    for criterion in CRITERIA:
        for figures in (
            Figures(0.0, value, Interval(value, *ends)) for value, *ends in ((0, -9, 9), (9, 9, 9), (-9, -9, -9))
        ):
            assert criterion.finding(figures, criterion.threshold(SETTINGS)).clause
        assert "nan" in criterion.finding(Figures(nan, nan, Interval(nan, nan, nan)), 0.5).clause


def changed(figures: Figures, **ends: float) -> Figures:
    assert figures.gain is not None
    return replace(figures, gain=replace(figures.gain, **ends))


def shifted(figures: Figures, by: float) -> Figures:
    if figures.gain is None:
        return replace(figures, lora=figures.lora + by)
    return gained(figures.gain.value + by, figures.gain.low + by, figures.gain.high + by)
