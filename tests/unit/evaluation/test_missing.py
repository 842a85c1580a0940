"""What a hold says is missing decides it, no less does, and nothing is promised that would not help."""

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from service.artifacts.kinds.evaluation import Interval, Missing
from service.evaluation.metrics import adherence_gain, kid_kernel, similarity_gain, style_gain
from service.evaluation.missing import Doubt, doubt_of_distance, doubt_of_mean, doubt_of_similarity, missing
from service.evaluation.resampling import Bootstrap

NONE = Missing(None, None, None)

parts = st.floats(0.01, 1)
doubts = st.builds(
    Doubt, parts, parts, parts, prompts=st.integers(2, 64), seeds=st.integers(2, 8), held_out=st.integers(64, 200)
)
held = st.tuples(st.floats(-0.95, 0.95), st.floats(1, 3)).filter(lambda drawn: abs(drawn[0]) > 0.2)
"""A gain, and by how much the half-width of its interval is larger than it; the threshold is 0."""


def straddling(value: float, wider: float) -> Interval:
    return Interval(value, value - abs(value) * wider, value + abs(value) * wider)


def remaining(doubt: Doubt, *, prompts: int = 0, seeds: int = 0, held_out: int = 0) -> float:
    """The variance with so many more of each, as a share of what it was."""
    with_more = (
        (doubt.of_prompts + doubt.of_seeds * doubt.seeds / (doubt.seeds + seeds)) * doubt.prompts / (doubt.prompts + prompts)
        + doubt.of_held_out * doubt.held_out / (doubt.held_out + held_out)
    )  # fmt: skip
    return with_more / (doubt.of_prompts + doubt.of_seeds + doubt.of_held_out)


@given(held, doubts)
def test_with_as_many_more_the_interval_leaves_its_threshold_and_with_one_fewer_it_does_not(
    drawn: tuple[float, float], doubt: Doubt
) -> None:
    value, wider = drawn
    found = missing(straddling(value, wider), 0.0, doubt)
    assert found is not None
    for name, more in (("prompts", found.prompts), ("seeds", found.seeds)):
        if more is not None:
            assert wider * sqrt(remaining(doubt, **{name: more})) <= 1 + 1e-9
            assert more == 1 or wider * sqrt(remaining(doubt, **{name: more - 1})) > 1 - 1e-9


@given(held, doubts)
def test_held_out_images_come_with_their_captions_as_prompts_and_decide_what_they_are_said_to(
    drawn: tuple[float, float], doubt: Doubt
) -> None:
    value, wider = drawn
    found = missing(straddling(value, wider), 0.0, doubt)
    assert found is not None
    if found.held_out_images is not None:
        prompts = doubt.held_out + found.held_out_images - doubt.prompts
        assert wider * sqrt(remaining(doubt, prompts=prompts, held_out=found.held_out_images)) <= 1 + 1e-9


@given(held, doubts, st.floats(1.01, 2))
def test_the_wider_the_interval_the_more_is_missing(drawn: tuple[float, float], doubt: Doubt, by: float) -> None:
    value, wider = drawn
    found, more = (missing(straddling(value, width), 0.0, doubt) for width in (wider, wider * by))
    assert found is not None
    assert more is not None
    for less, larger in ((found.prompts, more.prompts), (found.seeds, more.seeds)):
        assert larger is None or (less is not None and less <= larger)


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(-3, 3), doubts)
def test_of_an_interval_on_one_side_of_its_threshold_nothing_is_missing(
    value: float, half: float, threshold: float, doubt: Doubt
) -> None:
    assume(not value - half <= threshold <= value + half)
    assert missing(Interval(value, value - half, value + half), threshold, doubt) is None


@given(st.floats(0.01, 1), doubts)
def test_no_number_is_promised_for_a_gain_at_its_threshold(half: float, doubt: Doubt) -> None:
    assert missing(Interval(0.0, -half, half), 0.0, doubt) == NONE
    assert missing(Interval(half / 1000, -half, half), 0.0, doubt) == NONE


def test_seeds_are_no_help_where_prompts_differ_and_prompts_none_where_held_out_images_do() -> None:
    gain = Interval(0.5, -0.5, 1.5)
    by_prompts = Doubt(1.0, 0.0, 0.0, prompts=10, seeds=3, held_out=100)
    assert missing(gain, 0.0, by_prompts) == Missing(held_out_images=None, prompts=30, seeds=None)
    by_images = Doubt(0.0, 0.0, 1.0, prompts=10, seeds=3, held_out=20)
    assert missing(gain, 0.0, by_images) == Missing(held_out_images=60, prompts=None, seeds=None)


def test_prompts_that_no_held_out_image_has_must_come_with_more_of_them() -> None:
    doubt = Doubt(1.0, 0.0, 0.0, prompts=10, seeds=3, held_out=12)
    assert missing(Interval(0.5, -0.5, 1.5), 0.0, doubt) == Missing(held_out_images=28, prompts=None, seeds=None)


def test_what_is_missing_is_told_in_words() -> None:
    assert str(Missing(24, 8, 1)) == "about 1 more seed or 8 more prompts or 24 more held-out images would decide it"
    assert str(NONE) == "more images would hardly decide it"


def test_of_a_mean_the_parts_are_those_that_the_scores_were_made_of() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 2, 400).repeat(4) + rng.normal(0, 3, 1600)
    doubt = doubt_of_mean(scores, np.repeat(np.arange(400), 4).tolist(), held_out=400)
    assert doubt.of_prompts * 400 == pytest.approx(4, rel=0.25)
    assert doubt.of_seeds * 1600 == pytest.approx(9, rel=0.25)
    assert (doubt.of_held_out, doubt.prompts, doubt.seeds) == (0, 400, 4)


def test_one_image_a_prompt_says_nothing_of_seeds() -> None:
    assert doubt_of_mean([1.0, 2.0, 4.0], list("abc"), held_out=3).of_seeds == 0


@pytest.mark.parametrize("by", ["distance", "similarity"])
def test_the_parts_of_an_interval_add_up_to_its_width_and_shrink_as_they_say(by: str) -> None:
    """Against the bootstrap itself: of all images, and of three times as many reference images."""
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(24), 2).tolist()
    base, lora = (
        rng.normal(centre, 0.3, (48, 12)) + rng.normal(0, 0.3, (24, 12)).repeat(2, axis=0) for centre in (0.5, 0.2)
    )
    few = rng.normal(0, 0.6, (20, 12))
    many = np.tile(few, (3, 1))

    def width(reference: np.ndarray) -> float:
        gain = (style_gain if by == "distance" else similarity_gain)(reference, base, lora, groups, Bootstrap(0.6827))
        return (gain.high - gain.low) / 2

    def doubt(reference: np.ndarray) -> Doubt:
        if by == "distance":
            return doubt_of_distance(kid_kernel, reference, base, lora, groups)
        return doubt_of_similarity(reference, base, lora, groups)

    found = doubt(few)
    assert sqrt(found.of_prompts + found.of_seeds + found.of_held_out) == pytest.approx(width(few), rel=0.25)
    thrice = replace(found, of_held_out=found.of_held_out / 3)
    ratio = (thrice.of_prompts + thrice.of_seeds + thrice.of_held_out) / (
        found.of_prompts + found.of_seeds + found.of_held_out
    )
    assert width(many) / width(few) == pytest.approx(sqrt(ratio), rel=0.25)


def test_as_many_more_prompts_as_it_says_decide_most_of_the_time() -> None:
    rng = np.random.default_rng(2)
    decided = []
    for trial in range(60):
        gains = rng.normal(0.35, 1, 12)
        held = adherence_gain(np.zeros(12), gains, range(12), Bootstrap(resamples=400, seed=trial))
        found = missing(held, 0.0, doubt_of_mean(gains, range(12), held_out=2000))
        if found is None or found.prompts is None:
            continue
        more = np.append(gains, rng.normal(gains.mean(), gains.std(ddof=1), 2 * found.prompts))
        after = adherence_gain(np.zeros(len(more)), more, range(len(more)), Bootstrap(resamples=400, seed=trial))
        decided.append(not after.low <= 0 <= after.high)
    assert len(decided) > 20
    assert np.mean(decided) > 0.65, "of twice as many as it asks for"
