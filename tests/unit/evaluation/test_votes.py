import json
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from service.artifacts.documents import WrittenByNewer
from service.artifacts.kinds.evaluation import Finding
from service.artifacts.kinds.measurements import Measured, Measurements
from service.artifacts.kinds.votes import Vote, Votes
from service.evaluation.blind import VOTES, lora_is_left, order_of_pairs, preferences
from service.evaluation.criteria.votes import BLIND_VOTES, advantage, more_prompts
from service.exits import BadConfiguration, BadData
from service.settings.evaluate import EvaluateSettings

VERSION = "0123456789abcdef"
SEVERITY = {"promote": 0, "hold": 1, "reject": 2}

some = st.integers(0, 30)
decided = st.tuples(some, some).filter(lambda counts: sum(counts) > 0)


def finding(preferences_: Sequence[tuple[int, int]], prompts: Sequence[str], **settings: float) -> Finding:
    measured = Measured(images="i", prompts=list(prompts), variations=1, held_out=[])
    votes = np.array(preferences_, dtype=np.int64).reshape(-1, 2)
    return BLIND_VOTES.examine(Measurements(measured, {VOTES: votes}), EvaluateSettings(**settings))


def of_counts(wins: int, losses: int, ties: int = 0, **settings: float) -> Finding:
    chosen = [1] * wins + [-1] * losses + [0] * ties
    return finding(list(enumerate(chosen)), [f"prompt {number}" for number in range(len(chosen))], **settings)


@given(decided)
def test_whoever_swaps_base_and_lora_gets_the_opposite_interval(counts: tuple[int, int]) -> None:
    ours, theirs = advantage(*counts, 0.95), advantage(*reversed(counts), 0.95)
    assert (ours.value, ours.low, ours.high) == pytest.approx((-theirs.value, -theirs.high, -theirs.low))


@given(decided, st.sampled_from([0.3, 0.5, 0.7]))
def test_a_prompt_more_that_is_won_never_worsens_the_outcome(counts: tuple[int, int], share: float) -> None:
    wins, losses = counts
    before, after = of_counts(wins, losses, votes_share=share), of_counts(wins + 1, losses, votes_share=share)
    assert before.outcome is not None
    assert after.outcome is not None
    assert SEVERITY[after.outcome] <= SEVERITY[before.outcome]


@given(decided)
def test_by_default_it_promotes_exactly_when_the_two_sided_sign_test_says_that_the_lora_wins(
    counts: tuple[int, int],
) -> None:
    wins, losses = counts
    certain = binomtest(wins, wins + losses).pvalue < 0.05
    expected = "hold" if not certain else "promote" if wins > losses else "reject"
    assert of_counts(wins, losses).outcome == expected


@given(decided, st.integers(0, 20))
def test_ties_are_left_out(counts: tuple[int, int], ties: int) -> None:
    assert of_counts(*counts, ties) == of_counts(*counts)


def test_the_prompt_is_the_unit_however_often_it_was_voted_on() -> None:
    prompts = ["apple"] * 3 + ["boat"] * 3
    often = [(picture, 1) for picture in range(6)] * 4
    assert finding(often, prompts) == finding([(0, 1), (3, 1)], prompts)
    assert finding([(0, 1), (1, 1), (2, -1), (3, -1), (4, -1)], prompts).lora == 0.5, "by the majority"


def test_votes_that_decide_on_no_prompt_hold() -> None:
    for found in (of_counts(0, 0, 5), of_counts(0, 0)):
        assert (found.outcome, found.clause) == ("hold", "the blind votes decide on no prompt")


def test_a_hold_says_how_many_more_prompts_with_votes_would_decide_it_and_with_that_many_it_decides() -> None:
    found = of_counts(6, 2)
    assert found.outcome == "hold"
    assert found.missing is not None
    more = found.missing.voted_prompts
    assert more is not None
    assert f"about {more} more voted prompts would decide it" in found.clause
    wins = round(0.75 * (8 + more))
    assert of_counts(wins, 8 + more - wins).outcome == "promote"
    assert more_prompts(5, 5, 0.0, 0.95).voted_prompts is None


def test_another_share_can_be_asked_for() -> None:
    assert of_counts(16, 4).outcome == "promote"
    assert of_counts(16, 4, votes_share=0.7).outcome == "hold"
    assert of_counts(2, 18, votes_share=0.0).outcome == "promote"


def test_votes_on_sides_become_preferences_by_the_version_of_the_images_alone() -> None:
    votes = [Vote(picture=number, chosen="left" if lora_is_left(VERSION, number) else "right") for number in range(20)]
    of = Votes(images="runs/demo/images/1", version=VERSION, votes=[*votes, Vote(picture=20, chosen="none")])
    assert preferences({"a.json": of}, VERSION, 21).tolist() == [[number, 1] for number in range(20)] + [[20, 0]]
    other = of.model_copy(update={"votes": [Vote(picture=0, chosen="right" if lora_is_left(VERSION, 0) else "left")]})
    assert preferences({"a.json": other}, VERSION, 21).tolist() == [[0, -1]]


@given(st.integers(1, 20), st.integers(1, 4))
def test_each_picture_is_shown_once_and_one_of_each_prompt_before_the_second_of_any(prompts: int, seeds: int) -> None:
    of = [f"prompt {prompt}" for prompt in range(prompts) for _ in range(seeds)]
    order = order_of_pairs(VERSION, of)
    assert sorted(order) == list(range(len(of)))
    for begin in range(0, len(of), prompts):
        assert len({of[picture] for picture in order[begin : begin + prompts]}) == prompts
    assert order == order_of_pairs(VERSION, of)


def test_the_lora_is_as_often_left_as_right_and_elsewhere_for_other_images() -> None:
    left = Counter(lora_is_left(VERSION, number) for number in range(2000))
    assert 900 < left[True] < 1100
    assert [lora_is_left(VERSION, n) for n in range(64)] != [lora_is_left("another", n) for n in range(64)]


def test_votes_on_other_images_or_on_pictures_that_are_not_there_are_refused_with_the_file() -> None:
    of = Votes(images="runs/old/images/1", version="old", votes=[Vote(picture=4, chosen="left")])
    with pytest.raises(BadConfiguration, match=r"a\.json are on runs/old/images/1 in version old"):
        preferences({"a.json": of}, VERSION, 21)
    with pytest.raises(BadData, match=r"a\.json has a vote on picture 4; the highest number is 3"):
        preferences({"a.json": of}, "old", 4)


GOOD = {"schema_version": 1, "images": "i", "version": VERSION, "votes": [{"picture": 0, "chosen": "left"}]}


@pytest.mark.parametrize(
    "changed",
    [
        {"votes": [{"picture": 0, "chosen": "left"}, {"picture": 0, "chosen": "right"}]},
        {"votes": [{"picture": -1, "chosen": "left"}]},
        {"votes": [{"picture": "0", "chosen": "left"}]},
        {"votes": [{"picture": 0, "chosen": "lora"}]},
        {"votes": None},
        {"version": 3},
    ],
)
def test_a_damaged_file_of_votes_is_bad_data_in_one_line(changed: dict[str, object]) -> None:
    Votes.from_bytes(json.dumps(GOOD), "votes.json")
    with pytest.raises(BadData, match=r"^votes\.json is not valid: [^\n]+$"):
        Votes.from_bytes(json.dumps({**GOOD, **changed}), "votes.json")
    for cut in ("", json.dumps(GOOD)[:-5], "[]"):
        with pytest.raises(BadData, match=r"^votes\.json is n[^\n]+$"):
            Votes.from_bytes(cut, "votes.json")


def test_votes_of_a_newer_version_are_said_to_be_that() -> None:
    with pytest.raises(WrittenByNewer, match=r"votes\.json.*newer version"):
        Votes.from_bytes(json.dumps({**GOOD, "schema_version": 2}), "votes.json")
