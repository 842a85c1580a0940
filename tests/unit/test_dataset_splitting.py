"""The split depends on the content alone."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.dataset.splitting import held_out

HASHES = st.lists(st.integers().map(lambda n: hashlib.sha256(str(n).encode()).hexdigest()), min_size=2, unique=True)
SHARE = st.floats(min_value=0, max_value=1, exclude_max=True)


@given(HASHES, SHARE)
def test_each_side_has_an_image_and_the_share_is_kept(hashes: list[str], share: float) -> None:
    validation = held_out(hashes, share)
    assert validation < set(hashes)
    assert validation
    assert abs(len(validation) - share * len(hashes)) <= 1


@given(HASHES, SHARE, st.randoms(use_true_random=False))
def test_the_order_of_the_images_makes_no_difference(hashes: list[str], share: float, random: object) -> None:
    shuffled = list(hashes)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert held_out(shuffled, share) == held_out(hashes, share)


@given(HASHES, SHARE)
def test_one_more_image_moves_at_most_one_of_the_others(hashes: list[str], share: float) -> None:
    *before, _ = hashes
    if len(before) >= 2:
        assert len(held_out(before, share) ^ (held_out(hashes, share) & set(before))) <= 1


@pytest.mark.parametrize("hashes", [[], ["a"], ["a", "a"]])
def test_fewer_than_two_different_images_cannot_be_split(hashes: list[str]) -> None:
    with pytest.raises(ValueError):
        held_out(hashes, 0.5)
