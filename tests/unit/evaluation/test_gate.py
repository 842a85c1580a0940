from dataclasses import replace
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.evaluation.gate import SEVERITY, Measurements, Thresholds, decide
from service.evaluation.metrics import Interval

THRESHOLDS = Thresholds(live_share=0.95, adherence_margin=1.0)
GOOD = Measurements(
    liveness=1.0,
    style_gain=Interval(0.12, 0.08, 0.16),
    adherence_gain=Interval(-0.2, -0.7, 0.3),
    held_out_gain=Interval(0.01, -0.002, 0.02),
)
GAINS = ("style_gain", "adherence_gain", "held_out_gain")

intervals = st.lists(st.floats(-3, 3), min_size=3, max_size=3).map(
    lambda ends: Interval(sorted(ends)[1], min(ends), max(ends))
)
measurements = st.builds(Measurements, st.floats(0, 1), intervals, intervals, intervals)
improvements = st.floats(0, 5)


def outcome(measured: Measurements) -> str:
    return decide(measured, THRESHOLDS).outcome


def test_a_live_lora_that_gains_style_and_keeps_to_its_prompts_is_promoted() -> None:
    assert outcome(GOOD) == "promote"


def test_a_lora_that_changes_nothing_is_rejected_with_the_figures() -> None:
    decision = decide(replace(GOOD, liveness=0.125), THRESHOLDS)
    assert decision.outcome == "reject"
    assert "12.5%" in decision.reason
    assert "95.0%" in decision.reason


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        (Interval(-0.02, -0.04, -0.01), "reject"),
        (Interval(-0.02, -0.04, 0.0), "reject"),
        (Interval(0.02, -0.01, 0.04), "hold"),
        (Interval(0.02, 0.0, 0.04), "hold"),
        (Interval(0.02, 0.01, 0.04), "promote"),
    ],
)
def test_the_style_must_gain_for_certain(style: Interval, expected: str) -> None:
    assert outcome(replace(GOOD, style_gain=style)) == expected


@pytest.mark.parametrize(
    ("adherence", "expected"),
    [
        (Interval(-3.0, -4.0, -1.1), "reject"),
        (Interval(-1.5, -4.0, -1.0), "hold"),
        (Interval(-0.5, -1.1, 0.0), "hold"),
        (Interval(-0.5, -1.0, 0.0), "promote"),
        (Interval(2.0, 1.0, 3.0), "promote"),
    ],
)
def test_adherence_may_lose_no_more_than_the_margin(adherence: Interval, expected: str) -> None:
    assert outcome(replace(GOOD, adherence_gain=adherence)) == expected


def test_a_credibly_higher_held_out_loss_holds_and_an_undecided_one_does_not() -> None:
    assert outcome(replace(GOOD, held_out_gain=Interval(-0.02, -0.03, -0.01))) == "hold"
    assert outcome(replace(GOOD, held_out_gain=Interval(-0.02, -0.03, 0.01))) == "promote"


@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_a_measurement_that_is_not_finite_rejects(value: float) -> None:
    assert outcome(replace(GOOD, liveness=value)) == "reject"
    for name in GAINS:
        for end in ("value", "low", "high"):
            broken = replace(getattr(GOOD, name), **{end: value})
            assert outcome(replace(GOOD, **{name: broken})) == "reject"


@given(measurements)
def test_nothing_is_promoted_while_an_interval_straddles_its_threshold(measured: Measurements) -> None:
    style, adherence = measured.style_gain, measured.adherence_gain
    if style.low <= 0 <= style.high or adherence.low < -1.0 <= adherence.high:
        assert outcome(measured) != "promote"


@given(measurements, improvements, improvements, improvements, improvements)
def test_a_better_measurement_never_worsens_the_outcome(
    measured: Measurements, live: float, style: float, adherence: float, held_out: float
) -> None:
    better = Measurements(
        measured.liveness + live,
        shifted(measured.style_gain, style),
        shifted(measured.adherence_gain, adherence),
        shifted(measured.held_out_gain, held_out),
    )
    assert SEVERITY[decide(better, THRESHOLDS).outcome] <= SEVERITY[decide(measured, THRESHOLDS).outcome]


@given(measurements, st.sampled_from(GAINS), st.floats(0, 1))
def test_a_higher_lower_end_alone_never_worsens_the_outcome(measured: Measurements, name: str, share: float) -> None:
    gain = getattr(measured, name)
    narrower = replace(gain, low=gain.low + share * (gain.value - gain.low))
    better = replace(measured, **{name: narrower})
    assert SEVERITY[decide(better, THRESHOLDS).outcome] <= SEVERITY[decide(measured, THRESHOLDS).outcome]


@given(measurements)
def test_the_reason_is_one_sentence_with_figures(measured: Measurements) -> None:
    reason = decide(measured, THRESHOLDS).reason
    assert reason.endswith(".")
    assert ". " not in reason
    assert "\n" not in reason
    assert any(character.isdigit() for character in reason)


def shifted(gain: Interval, by: float) -> Interval:
    return Interval(gain.value + by, gain.low + by, gain.high + by)
