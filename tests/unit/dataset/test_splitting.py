"""Which images are held out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.dataset.splitting import held_out

hashes = st.integers(0, 2**64).map(lambda number: f"{number:064x}")
sets = st.lists(st.lists(hashes, min_size=1, max_size=5), min_size=2, max_size=30).filter(
    lambda clusters: len({one for cluster in clusters for one in cluster}) == sum(map(len, clusters))
)
shares = st.floats(0, 0.999)


@given(sets, shares)
def test_a_cluster_is_held_out_as_a_whole_or_not_at_all_and_both_sides_have_one(
    clusters: list[list[str]], share: float
) -> None:
    chosen = held_out(clusters, share)
    sides = [{sha256 in chosen for sha256 in cluster} for cluster in clusters]
    assert all(len(side) == 1 for side in sides)
    assert {True} in sides
    assert {False} in sides


@given(sets, shares)
def test_no_other_number_of_clusters_in_that_order_is_nearer_to_the_share(
    clusters: list[list[str]], share: float
) -> None:
    ordered = sorted(clusters, key=min)
    wanted = round(share * sum(map(len, clusters)))
    misses = [abs(sum(map(len, ordered[:count])) - wanted) for count in range(1, len(ordered))]
    assert abs(len(held_out(clusters, share)) - wanted) == min(misses)


@given(st.sets(hashes, min_size=2, max_size=60), shares)
def test_of_single_images_the_lowest_hashes_are_held_out_as_many_as_the_share_says(
    single: set[str], share: float
) -> None:
    count = min(max(1, round(share * len(single))), len(single) - 1)
    assert held_out([[sha256] for sha256 in single], share) == set(sorted(single)[:count])


@given(sets, shares, st.randoms())
def test_the_order_of_clusters_and_images_does_not_matter(
    clusters: list[list[str]], share: float, dice: object
) -> None:
    shuffled = [dice.sample(cluster, len(cluster)) for cluster in dice.sample(clusters, len(clusters))]  # type: ignore[attr-defined]
    assert held_out(shuffled, share) == held_out(clusters, share)


@pytest.mark.parametrize("clusters", [[], [["a"]], [["a", "b"]], [["a"], ["a"]], [["a"], ["b", "b"]], [["a"], []]])
def test_what_cannot_be_split_is_refused(clusters: list[list[str]]) -> None:
    with pytest.raises(ValueError, match="two or more"):
        held_out(clusters, 0.5)
