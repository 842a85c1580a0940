from collections.abc import Mapping
from dataclasses import replace
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.artifacts.kinds.evaluation import Interval
from service.evaluation.criteria.criterion import Figures
from service.evaluation.gate import AGAINST_CHAMPION, CRITERIA, SEVERITY, Decision, criteria, decide
from service.settings.evaluate import EvaluateSettings

SETTINGS = EvaluateSettings(live_share=0.95, adherence_margin=1.0)
COUNTS = ("broken", "copies")
JUDGED = ("style", "adherence", "held_out")
"""Of the gains, those that have a threshold by default."""
TOLD = ("cmmd", "similarity", "bleed", "diversity", "memorisation")
GAINS = JUDGED + TOLD

Measured = Mapping[str, Figures | None]
Ends = tuple[float, float, float]


def gained(value: float, low: float, high: float) -> Figures:
    return Figures(0.0, value, Interval(value, low, high))


GOOD: Mapping[str, Figures] = {
    "liveness": Figures(None, 1.0),
    "style": gained(0.12, 0.08, 0.16),
    "adherence": gained(-0.2, -0.7, 0.3),
    "held_out": gained(0.01, -0.002, 0.02),
    "broken": Figures(0.0, 0.0),
    "copies": Figures(0.0, 0.0),
    "cmmd": gained(0.3, 0.2, 0.4),
    "similarity": gained(0.05, 0.02, 0.08),
    "bleed": gained(-0.01, -0.03, 0.01),
    "diversity": gained(-0.05, -0.1, 0.02),
    "memorisation": gained(0.0, 0.0, 0.0),
}

gains = st.lists(st.floats(-3, 3), min_size=3, max_size=3).map(
    lambda ends: gained(sorted(ends)[1], min(ends), max(ends))
)
counts = st.integers(0, 96).map(lambda count: Figures(0.0, float(count)))
measurements = st.fixed_dictionaries(
    {
        "liveness": st.builds(Figures, st.none(), st.floats(0, 1)),
        **dict.fromkeys(COUNTS, counts),
        **dict.fromkeys(GAINS, gains),
    }
)
improvements = st.floats(0, 5)


def decision(measured: Measured, settings: EvaluateSettings = SETTINGS) -> Decision:
    return decide([one.finding(measured[one.name], one.threshold(settings)) for one in CRITERIA])


def outcome(measured: Measured, settings: EvaluateSettings = SETTINGS) -> str:
    return decision(measured, settings).outcome


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


@pytest.mark.parametrize(("count", "expected"), [(0, "promote"), (1, "reject"), (96, "reject")])
def test_a_single_broken_picture_rejects(count: int, expected: str) -> None:
    assert outcome({**GOOD, "broken": Figures(0.0, float(count))}) == expected


@pytest.mark.parametrize("name", [*TOLD, "copies"])
def test_what_has_no_threshold_by_default_is_told_and_decides_nothing(name: str) -> None:
    bad = Figures(0.0, 50.0) if name == "copies" else gained(-5.0, -6.0, -4.0)
    assert decision({**GOOD, name: bad}) == decision(GOOD)


@pytest.mark.parametrize(
    ("name", "threshold", "good", "doubtful", "bad"),
    [
        ("cmmd", {"cmmd_gain": 0.0}, (0.3, 0.1, 0.5), (0.3, -0.1, 0.5), (-0.3, -0.5, -0.1)),
        ("similarity", {"similarity_gain": 0.0}, (0.3, 0.1, 0.5), (0.3, -0.1, 0.5), (-0.3, -0.5, -0.1)),
        ("bleed", {"bleed_margin": 0.1}, (0.0, -0.1, 0.1), (-0.1, -0.2, 0.1), (-0.3, -0.5, -0.11)),
        ("diversity", {"diversity_margin": 0.2}, (-0.1, -0.2, 0.1), (-0.1, -0.3, 0.1), (-0.3, -0.5, -0.21)),
        ("memorisation", {"memorised_share": 0.01}, (0.0, 0.0, 0.0), (-0.01, -0.1, 0.0), (-0.3, -0.5, -0.1)),
    ],
)
def test_with_a_threshold_it_promotes_holds_and_rejects_as_its_interval_lies(
    name: str, threshold: dict[str, float], good: Ends, doubtful: Ends, bad: Ends
) -> None:
    strict = EvaluateSettings(**threshold)
    found = [outcome({**GOOD, name: gained(*ends)}, strict) for ends in (good, doubtful, bad)]
    assert found == ["promote", "hold", "reject"]


def test_with_a_threshold_more_copies_of_training_images_than_that_reject() -> None:
    strict = EvaluateSettings(copies=2)
    assert [outcome({**GOOD, "copies": Figures(0.0, count)}, strict) for count in (2.0, 3.0)] == ["promote", "reject"]


@pytest.mark.parametrize(
    ("name", "threshold"),
    [
        ("bleed", {"bleed_margin": 0.1}),
        ("diversity", {"diversity_margin": 0.2}),
        ("memorisation", {"memorised_share": 0.01}),
        ("copies", {"copies": 0}),
    ],
)
def test_what_could_not_be_measured_holds_with_a_threshold_and_says_so(name: str, threshold: dict[str, float]) -> None:
    unmeasured = {**GOOD, name: None}
    assert outcome(unmeasured) == "promote"
    found = decision(unmeasured, EvaluateSettings(**threshold))
    assert found.outcome == "hold"
    assert "not known" in found.reason


def test_a_credibly_higher_held_out_loss_holds_and_an_undecided_one_does_not() -> None:
    assert outcome({**GOOD, "held_out": gained(-0.02, -0.03, -0.01)}) == "hold"
    assert outcome({**GOOD, "held_out": gained(-0.02, -0.03, 0.01)}) == "promote"


@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_a_measurement_that_is_not_finite_rejects(value: float) -> None:
    assert outcome({**GOOD, "liveness": Figures(None, value)}) == "reject"
    assert outcome({**GOOD, "broken": Figures(0.0, value)}) == "reject"
    for name in JUDGED:
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
    better = {name: shifted(figures, -by[name] if name in COUNTS else by[name]) for name, figures in measured.items()}
    assert SEVERITY[decision(better).outcome] <= SEVERITY[decision(measured).outcome]


@given(measurements, st.sampled_from(JUDGED), st.floats(0, 1))
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
    judged = [finding for finding in findings if finding.outcome]
    assert all((finding.clause in decided.reason) == (finding.outcome == decided.outcome) for finding in judged)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ((-0.3, -0.4, -0.2), "reject"),
        ((-0.1, -0.2, 0.0), "hold"),
        ((0.0, -0.1, 0.1), "promote"),
        ((0.2, 0.1, 0.3), "promote"),
    ],
)
def test_a_good_lora_is_promoted_when_it_is_for_certain_no_worse_than_the_champion_by_more_than_the_margin(
    ends: Ends, expected: str
) -> None:
    strict = EvaluateSettings(champion_style_margin=0.1, adherence_margin=0.1)
    good = [one.finding(GOOD[one.name], one.threshold(SETTINGS)) for one in CRITERIA]
    for criterion in AGAINST_CHAMPION:
        found = criterion.finding(gained(*ends), criterion.threshold(strict))
        assert decide([*good, found]).outcome == expected
        assert "champion" in found.clause


def test_every_criterion_has_a_name_of_its_own_and_a_word_for_whatever_it_may_say() -> None:
    every = criteria(champion=True)
    assert len({one.name for one in every}) == len(every)
    for criterion in every:
        for figures in (
            Figures(0.0, value, Interval(value, *ends)) for value, *ends in ((0, -9, 9), (9, 9, 9), (-9, -9, -9))
        ):
            assert criterion.finding(figures, 0.0).clause
        assert "nan" in criterion.finding(Figures(nan, nan, Interval(nan, nan, nan)), 0.5).clause


def changed(figures: Figures, **ends: float) -> Figures:
    assert figures.gain is not None
    return replace(figures, gain=replace(figures.gain, **ends))


def shifted(figures: Figures, by: float) -> Figures:
    if figures.gain is None:
        return replace(figures, lora=figures.lora + by)
    return gained(figures.gain.value + by, figures.gain.low + by, figures.gain.high + by)
