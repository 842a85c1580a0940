"""The prompts that lose and gain most are named and shown."""

import numpy as np

from service.artifacts.kinds.measurements import Measured, Measurements
from service.evaluation.extremes import Extreme, extremes, extremes_grid
from tests.unit.evaluation.samples import patterns


def measurements(base: list[float], lora: list[float], variations: int) -> Measurements:
    prompts = [f"prompt {number // variations}" for number in range(len(base))]
    measured = Measured(images="runs/x/images/y", prompts=prompts, variations=variations, held_out=["a"])
    return Measurements(measured, {"base_clip_scores": np.array(base), "lora_clip_scores": np.array(lora)})


def test_the_three_that_lose_most_and_the_three_that_gain_most_are_named_the_least_first() -> None:
    gains = [3.0, -1.0, 0.0, 0.5, -5.0, 2.0, 0.1, -3.0]
    found = extremes(measurements([20.0] * 8, [20.0 + gain for gain in gains], variations=1))
    assert [one.prompt for one in found] == [4, 7, 1, 3, 5, 0]
    assert [one.gain for one in found] == [gains[one.prompt] for one in found]


def test_the_pictures_of_one_prompt_count_together_and_of_few_prompts_none_is_named_twice() -> None:
    found = extremes(measurements([10, 20, 30, 30], [20, 10, 30, 34], variations=2))
    assert found == [Extreme(0, 0.0), Extreme(1, 2.0)]


def test_they_are_shown_base_above_lora_with_at_most_two_seeds_each() -> None:
    base, lora = ([patterns(seed, 3) for seed in seeds] for seeds in ((0, 1), (2, 3)))
    one, two = (extremes_grid([Extreme(0, -1.0)] * count, ["a", "b"], base, lora) for count in (1, 2))
    assert one.height == two.height
    assert two.width > one.width
    fewer = extremes_grid([Extreme(0, -1.0)], ["a", "b"], [base[0][:2]], [lora[0][:2]])
    assert one.tobytes() == fewer.tobytes()
