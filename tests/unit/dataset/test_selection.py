"""Which candidates are looked at, and which good images enter the data set."""

import random

from hypothesis import given
from hypothesis import strategies as st

from service.artifacts.kinds.dataset import host_of
from service.dataset.candidates import Candidate, Reason, Record
from service.dataset.selection import Criteria, by_turns, look_alike_groups, plan, select, shard_of
from tests.unit.dataset.records import features_of

ALL = 0xFFFFFFFFFFFFFFFF
HALF = 0xFFFFFFFF00000000


def record(rank: int, sha256: str = "", look: int = 0, side: int = 64, relevance: float | None = None) -> Record:
    """A good image; `look` is both of its perceptual hashes."""
    features = features_of(sha256 or f"{rank:064x}", (side, side), look=look, relevance=relevance)
    return Record(Candidate(rank, f"{rank}.png"), features=features)


def criteria(**values: object) -> Criteria:
    return Criteria(limit=100, near_duplicates="drop", near_distance=4, min_relevance=0)._replace(**values)


def outcome(records: list[Record]) -> dict[int, Reason | None]:
    return {one.candidate.rank: one.reason for one in records}


def test_a_url_is_looked_at_once_whatever_its_fragment() -> None:
    origins = ["http://a/1.png", "http://a/2.png", "http://a/1.png#top", "http://a/1.png?x", "http://a/2.png"]
    looked_at, settled = plan([Candidate(rank, origin) for rank, origin in enumerate(origins)], 10)
    assert [candidate.rank for candidate in looked_at] == [0, 1, 3]
    assert [(one.candidate.rank, one.reason, one.kept) for one in settled] == [
        (2, Reason.DUP_URL, "http://a/1.png"),
        (4, Reason.DUP_URL, "http://a/2.png"),
    ]


def test_no_more_candidates_are_looked_at_than_asked_for_and_none_is_forgotten() -> None:
    candidates = [Candidate(rank, f"{rank}.png") for rank in range(5)]
    looked_at, settled = plan(candidates, 3)
    assert looked_at == candidates[:3]
    assert outcome(settled) == {3: Reason.LIMIT_REACHED, 4: Reason.LIMIT_REACHED}


@given(st.integers(0, 60), st.integers(1, 9))
def test_shards_are_disjoint_cover_everything_and_are_of_one_size(total: int, count: int) -> None:
    candidates = [Candidate(rank, f"{rank}") for rank in range(total)]
    shards = [shard_of(candidates, index, count) for index in range(count)]
    assert sorted(c.rank for part in shards for c in part) == list(range(total))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@given(st.lists(st.sampled_from("abcd"), max_size=40))
def test_hosts_are_visited_by_turns(hosts: list[str]) -> None:
    candidates = [Candidate(rank, f"http://{host}/{rank}.png") for rank, host in enumerate(hosts)]
    order = by_turns(candidates)
    assert sorted(order, key=lambda candidate: candidate.rank) == candidates
    visited: dict[str, int] = {}
    for candidate in order:
        host = host_of(candidate.origin)
        visited[host] = visited.get(host, 0) + 1
        waiting = [other for other in set(hosts) if visited.get(other, 0) < hosts.count(other)]
        assert all(visited[host] <= visited.get(other, 0) + 1 for other in waiting)


def test_a_url_without_a_host_is_no_obstacle() -> None:
    assert [host_of(origin) for origin in ("a/b.png", "http://[broken", "HTTP://A.b:80/c")] == ["", "", "a.b"]


def test_of_equal_images_the_first_stays() -> None:
    chosen = select([record(2, "x"), record(0, "x"), record(1, "y", look=HALF)], criteria())
    assert outcome(chosen) == {0: None, 1: None, 2: Reason.DUP_EXACT}
    assert chosen[2].kept == "0.png"


def test_of_images_that_look_alike_the_largest_stays_and_names_itself() -> None:
    records = [record(0, side=64), record(1, side=128, look=1), record(2, look=ALL), record(3, side=128, look=3)]
    chosen = select(records, criteria())
    assert outcome(chosen) == {0: Reason.DUP_NEAR, 1: None, 2: None, 3: Reason.DUP_NEAR}
    assert {one.kept for one in chosen if one.reason} == {"1.png"}
    assert set(outcome(select(records, criteria(near_duplicates="keep"))).values()) == {None}


def test_an_irrelevant_image_displaces_no_other() -> None:
    records = [record(0, "x", relevance=10.0), record(1, "x", relevance=30.0), record(2, look=HALF)]
    chosen = select(records, criteria(min_relevance=20, limit=1))
    assert outcome(chosen) == {0: Reason.IRRELEVANT, 1: None, 2: Reason.LIMIT_REACHED}


def test_what_is_left_out_already_stays_so() -> None:
    gone = Record(Candidate(0, "a"), Reason.HTTP_STATUS, "404")
    assert select([gone, record(1)], criteria())[0] is gone


looks = st.sampled_from([0, 1, 3, 0xFF, 0xFFFF, HALF, ALL])
images = st.lists(st.tuples(looks, st.sampled_from([32, 64, 64, 128]), st.integers(0, 5)), max_size=14)


@given(images, st.integers(0, 8), st.integers(1, 5), st.randoms())
def test_the_choice_depends_neither_on_the_order_nor_on_shards_that_chose_before(
    drawn: list[tuple[int, int, int]], limit: int, count: int, dice: random.Random
) -> None:
    records = [record(rank, f"{same}-{look}-{side}", look, side) for rank, (look, side, same) in enumerate(drawn)]
    chosen = select(records, criteria(limit=limit))
    shuffled = dice.sample(records, len(records))
    assert select(shuffled, criteria(limit=limit)) == chosen
    # What a shard drops by itself, the merge drops too: captioning the rest is no waste.
    for index in range(count):
        part = select(records[index::count], criteria(limit=len(records)))
        dropped = {one.candidate.rank for one in part if one.reason is not None}
        assert all(outcome(chosen)[rank] is not None for rank in dropped)


@given(images)
def test_no_two_accepted_images_look_alike_and_every_group_keeps_one(drawn: list[tuple[int, int, int]]) -> None:
    records = [record(rank, look=look, side=side) for rank, (look, side, _) in enumerate(drawn)]
    accepted = [one for one in select(records, criteria()) if one.reason is None]
    assert all(len(group) == 1 for group in look_alike_groups(accepted, 4))
    assert len(accepted) == len(look_alike_groups(records, 4))
