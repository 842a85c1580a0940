import time
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torchmetrics.image.kid import poly_mmd

from service.artifacts.kinds.evaluation import Interval
from service.evaluation.metrics import adherence_gain, held_out_gain, kid, liveness, pixel_differences, style_gain
from service.evaluation.resampling import Bootstrap
from service.exits import BadData

Array = NDArray[np.float64]


def draw(rng: np.random.Generator, count: int, centre: float, spread: float = 0.3) -> Array:
    return rng.normal(centre, spread, size=(count, 24))


def test_kid_is_torchmetrics_unbiased_mmd_over_all_samples() -> None:
    rng = np.random.default_rng(0)
    a, b = draw(rng, 20, 0.0), draw(rng, 20, 0.4)
    expected = float(poly_mmd(torch.from_numpy(a), torch.from_numpy(b)))
    assert kid(a, b) == pytest.approx(expected, rel=1e-10)


def test_kid_averages_zero_over_pairs_of_sets_from_one_distribution_of_any_sizes() -> None:
    rng = np.random.default_rng(1)
    distances = [kid(draw(rng, 6, 0.2), draw(rng, 15, 0.2)) for _ in range(400)]
    assert abs(np.mean(distances)) < 4 * np.std(distances) / np.sqrt(len(distances))


def test_kid_takes_tensors_as_it_takes_arrays() -> None:
    a, b = draw(np.random.default_rng(0), 5, 0.0), draw(np.random.default_rng(1), 7, 0.5)
    assert kid(torch.from_numpy(a), torch.from_numpy(b)) == kid(a, b)


def test_one_image_has_no_distance_of_styles() -> None:
    with pytest.raises(BadData, match="at least 2 images"):
        kid(np.zeros((1, 3)), np.zeros((5, 3)))


def test_the_style_gain_is_the_difference_of_the_two_distances() -> None:
    rng = np.random.default_rng(2)
    reference, base, lora = draw(rng, 15, 0.0), draw(rng, 24, 0.6), draw(rng, 24, 0.1)
    gain = style_gain(reference, base, lora, groups=np.repeat(np.arange(8), 3).tolist())
    assert gain.value == pytest.approx(kid(reference, base) - kid(reference, lora), rel=1e-9)
    assert 0 < gain.low < gain.value < gain.high


def test_a_lora_that_changes_nothing_has_no_style_gain_at_all() -> None:
    rng = np.random.default_rng(3)
    base = draw(rng, 12, 0.4)
    gain = style_gain(draw(rng, 9, 0.0), base, base, groups=list(range(12)))
    assert gain == Interval(0.0, 0.0, 0.0)


def test_a_prompt_drawn_twice_does_not_bias_the_interval() -> None:
    """A wide base and a narrow LoRA: copies that met themselves would add a perfect match to the base's side alone."""
    rng = np.random.default_rng(4)
    reference, base, lora = draw(rng, 100, 0.0, 0.1), draw(rng, 12, 0.0, 1.0), draw(rng, 12, 0.0, 0.1)
    gain = style_gain(reference, base, lora, groups=list(range(12)))
    naive = np.array([naive_gain(rng, reference, base, lora) for _ in range(100)])
    assert abs((gain.low + gain.high) / 2 - gain.value) < 0.3 * (gain.high - gain.low)
    assert np.median(naive) > gain.high, "the case must be one in which the bias would show"


def naive_gain(rng: np.random.Generator, reference: Array, base: Array, lora: Array) -> float:
    rows = rng.integers(len(base), size=len(base))
    return kid(reference, base[rows]) - kid(reference, lora[rows])


def test_images_of_one_prompt_count_as_one_observation() -> None:
    """Twelve copies of each prompt's image hold no more evidence than one does; taken as independent they would seem to."""
    rng = np.random.default_rng(5)
    reference, base, lora = draw(rng, 40, 0.0), draw(rng, 6, 0.4), draw(rng, 6, 0.2)
    copies = np.repeat(np.arange(6), 12)
    grouped = style_gain(reference, base[copies], lora[copies], groups=copies.tolist())
    independent = style_gain(reference, base[copies], lora[copies], groups=list(range(72)))
    assert grouped.high - grouped.low > 1.5 * (independent.high - independent.low)


def test_the_interval_covers_the_true_gain_about_as_often_as_it_claims() -> None:
    rng = np.random.default_rng(6)
    truth = np.mean([kid(r, draw(rng, 200, 0.5)) - kid(r, draw(rng, 200, 0.2)) for r in (draw(rng, 200, 0.0),) * 20])
    covered = 0
    for trial in range(150):
        reference, base, lora = draw(rng, 30, 0.0), draw(rng, 30, 0.5), draw(rng, 30, 0.2)
        gain = style_gain(reference, base, lora, list(range(30)), Bootstrap(resamples=300, seed=trial))
        covered += gain.low <= truth <= gain.high
    assert covered / 150 > 0.87


def test_a_wrong_order_of_the_resampling_arguments_is_refused() -> None:
    features = draw(np.random.default_rng(7), 6, 0.0)
    with pytest.raises(ValueError, match="do not pair up"):
        style_gain(features, features, features[:4], groups=list(range(6)))


def test_one_prompt_gives_no_interval() -> None:
    features = draw(np.random.default_rng(8), 6, 0.0)
    with pytest.raises(BadData, match="at least 2 prompts"):
        style_gain(features, features, features, groups=["a"] * 6)


def test_two_prompts_of_one_image_each_are_enough() -> None:
    rng = np.random.default_rng(9)
    gain = style_gain(draw(rng, 8, 0.0), draw(rng, 2, 0.5), draw(rng, 2, 0.1), groups=["a", "b"])
    assert gain.finite


def test_features_that_are_not_finite_give_an_interval_that_is_not() -> None:
    features = draw(np.random.default_rng(10), 6, 0.0)
    broken = features.copy()
    broken[2, 3] = np.nan
    assert not style_gain(features, features, broken, list(range(6))).finite


def test_the_same_seed_gives_the_same_interval() -> None:
    rng = np.random.default_rng(11)
    sets = draw(rng, 9, 0.0), draw(rng, 10, 0.4), draw(rng, 10, 0.2)
    first, again, other = (style_gain(*sets, list(range(10)), Bootstrap(seed=seed)) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_two_thousand_resamples_of_a_hundred_images_take_no_noticeable_time() -> None:
    rng = np.random.default_rng(12)
    sets = [rng.normal(size=(count, 1280)) for count in (100, 96, 96)]
    started = time.process_time()
    style_gain(sets[0], sets[1], sets[2], groups=np.repeat(np.arange(32), 3).tolist())
    assert time.process_time() - started < 2


def test_the_adherence_gain_is_paired_and_resampled_by_prompt() -> None:
    rng = np.random.default_rng(13)
    difficulty = rng.normal(25, 10, size=20).repeat(3)
    base = difficulty + rng.normal(0, 0.1, size=60)
    gain = adherence_gain(base, base + 0.5 + rng.normal(0, 0.1, size=60), np.repeat(np.arange(20), 3).tolist())
    assert gain.value == pytest.approx(0.5, abs=0.05)
    assert gain.high - gain.low < 0.2, "unpaired, the difficulty of the prompts would swamp it"


@given(st.floats(-50, 50), st.integers(2, 12))
@settings(max_examples=20, deadline=None)
def test_equal_gains_collapse_the_interval_without_a_warning(gain: float, count: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        interval = adherence_gain(np.zeros(count), np.full(count, gain), list(range(count)), Bootstrap(resamples=50))
    assert interval.low == pytest.approx(gain, abs=1e-9)
    assert interval.high == pytest.approx(gain, abs=1e-9)


def test_equal_scores_leave_exactly_nothing_to_gain() -> None:
    assert adherence_gain([25.3] * 6, [25.3] * 6, list("aabbcc")) == Interval(0.0, 0.0, 0.0)


def test_scores_that_are_not_finite_give_an_interval_that_is_not_and_no_warning() -> None:
    assert not adherence_gain([1.0, 2.0, 3.0], [1.0, np.inf, 3.0], list("abc")).finite


def test_a_lower_held_out_loss_is_a_gain() -> None:
    base = np.array([0.10, 0.20, 0.30, 0.15])
    gain = held_out_gain(base, base - 0.02)
    assert gain.value == pytest.approx(0.02)
    assert gain.low > 0
    assert held_out_gain(base, base + 0.02).high < 0


def test_liveness_counts_the_pairs_that_differ_by_more_than_one_step_of_eight_bits() -> None:
    grey = Image.new("RGB", (8, 8), (100, 100, 100))
    step = Image.new("RGB", (8, 8), (101, 101, 101))
    two_steps = Image.new("RGB", (8, 8), (98, 98, 98))
    assert liveness(pixel_differences([grey] * 4, [grey, step, two_steps, two_steps])) == 0.5


def test_pairs_of_unequal_number_are_refused() -> None:
    grey = Image.new("RGB", (8, 8))
    with pytest.raises(ValueError):
        pixel_differences([grey, grey], [grey])
