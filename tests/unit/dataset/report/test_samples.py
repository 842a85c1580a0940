"""Which of very many are shown."""

from hypothesis import given
from hypothesis import strategies as st

from service.dataset.candidates import Candidate, Reason, Record
from service.dataset.report.samples import SHOWN, of_each_reason, shared_out, spread
from tests.unit.dataset.records import record


def test_a_rare_reason_is_shown_whole_beside_a_common_one() -> None:
    common = [record(rank, reason=Reason.DUP_NEAR) for rank in range(500)]
    rare = [record(rank, reason=Reason.TOO_SMALL) for rank in range(500, 503)]
    unseen = [Record(Candidate(rank, "x"), Reason.HTTP_STATUS) for rank in range(503, 510)]
    records = [*common, *rare, *unseen, record(510)]
    shown = of_each_reason(records, seen=True)
    assert len(shown) == SHOWN
    assert shown[:3] == rare
    assert {one.reason for one in shown[3:]} == {Reason.DUP_NEAR}
    assert of_each_reason(records, seen=False) == unseen


@given(st.lists(st.integers(0, 40), max_size=9), st.integers(0, 100))
def test_what_can_be_shown_is_shared_out(sizes: list[int], count: int) -> None:
    shares = shared_out(sizes, count)
    assert sum(shares) == min(count, sum(sizes))
    assert all(share <= size for share, size in zip(shares, sizes, strict=True))
    cut = [share for share, size in zip(shares, sizes, strict=True) if share < size]
    assert not cut or max(shares) - min(cut) <= 1


@given(st.lists(st.integers(), min_size=1, max_size=50), st.integers(1, 20))
def test_what_is_shown_is_spread_over_all(items: list[int], count: int) -> None:
    shown = spread(items, count)
    assert len(shown) == min(count, len(items))
    places = spread(range(len(items)), count)
    assert places == sorted(set(places))
    gaps = [after - before for before, after in zip(places, [*places[1:], len(items)], strict=True)]
    assert max(gaps) - min(gaps) <= 1
    assert spread([], count) == []
