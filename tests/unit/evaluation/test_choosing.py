"""Half of the prompts choose among candidates, and what they choose by is nothing that decides."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from service.artifacts.kinds.measurements import Candidate
from service.evaluation.choosing import chosen, halves
from service.evaluation.metrics import kid, style_gain
from service.exits import BadData

distinct = st.lists(st.text(max_size=20), min_size=4, max_size=40, unique=True)


@given(distinct)
def test_every_prompt_is_in_one_half_and_both_are_of_one_size(prompts: list[str]) -> None:
    choosing, deciding = halves(prompts)
    assert sorted(choosing + deciding) == sorted(prompts)
    assert not set(choosing) & set(deciding)
    assert len(deciding) - len(choosing) in (0, 1)


@given(distinct, st.randoms(use_true_random=False))
def test_the_order_of_prompts_moves_none_to_the_other_half(prompts: list[str], random: object) -> None:
    shuffled = list(prompts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert [set(half) for half in halves(shuffled)] == [set(half) for half in halves(prompts)]


def test_too_few_prompts_to_choose_and_to_decide_are_refused_with_their_number() -> None:
    with pytest.raises(BadData, match="4 different captions of held-out images are needed and there are 3"):
        halves(["a", "b", "c", "c"])


def candidate(scale: float, distance: float, adherence: float) -> Candidate:
    return Candidate(scale=scale, style_distance=distance, adherence=adherence, images="runs/x/images/y")


def test_the_nearest_to_the_style_is_chosen_among_those_that_follow_the_prompts() -> None:
    weak, good, strong = candidate(0.5, 0.3, 25), candidate(1, 0.2, 24), candidate(1.5, 0.1, 10)
    assert chosen([weak, good, strong], adherence_needed=24) == good
    assert chosen([weak, good, strong], adherence_needed=9) == strong
    assert chosen([weak, good, strong], adherence_needed=30) == weak


FEATURES, PROMPTS, USELESS = 4, 48, 12


def test_the_best_of_twelve_useless_candidates_gains_nothing_by_the_prompts_that_did_not_choose_it() -> None:
    """And seems to gain by those that chose it: that is why they may not decide."""
    seeming, true, promoted = [], [], 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        held_out, base, *useless = rng.normal(size=(2 + USELESS, PROMPTS, FEATURES))
        names = [f"prompt {number}" for number in range(PROMPTS)]
        choosing, deciding = ([names.index(name) for name in half] for half in halves(names))
        best = min(useless, key=lambda drawn: kid(held_out[choosing], drawn[choosing]))
        gain = style_gain(held_out[deciding], base[deciding], best[deciding], deciding)
        promoted += gain.low > 0
        true.append(gain.value)
        seeming.append(kid(held_out[choosing], base[choosing]) - kid(held_out[choosing], best[choosing]))
    assert promoted == 0
    assert ttest_1samp(seeming, 0, alternative="greater").pvalue < 1e-6
    assert ttest_1samp(true, 0, alternative="greater").pvalue > 0.05
