"""Which candidates are left out because they, or images that look like them, are excluded."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from service.artifacts.kinds.exclusions import ExcludedImage, Exclusion, add
from service.dataset.candidates import Candidate, Reason, Record
from service.dataset.exclusion import OF_THE_SETTING, Excluded, excluded_by, with_all_named
from service.dataset.images.duplicates import near_any, near_duplicates
from service.diffusion.looks import Look
from service.settings.data_prep import DataPrepSettings
from service.storage.local import LocalStore
from tests.unit.dataset.records import features_of

FAR = 0xFFFFFFFFFFFFFFFF
looks = st.builds(Look, *(st.sampled_from([0, 1, 3, FAR]),) * 2, st.sampled_from([0, 0x101010, 0xFF0000]))


def record(rank: int, look: int = FAR, reason: Reason | None = None) -> Record:
    """A decoded candidate whose sha256 is its rank."""
    return Record(Candidate(rank, f"https://a.example/{rank}.png"), reason, "", features_of(f"{rank:064x}", look=look))


def left_out(records: list[Record]) -> dict[int, str]:
    return {one.candidate.rank: one.detail for one in records if one.reason == Reason.EXCLUDED}


def test_what_is_excluded_by_its_address_or_its_page_is_not_even_looked_at() -> None:
    candidates = [
        Candidate(0, "https://a.example/0.png#top"),
        Candidate(1, "https://a.example/1.png", page="https://a.example/gallery"),
        Candidate(2, "2.png"),
    ]
    excluded = Excluded({"https://a.example/0.png": "one", "https://a.example/gallery": "two"}, 4)
    allowed, records = excluded.parted(candidates)
    assert allowed == candidates[2:]
    assert left_out(records) == {0: "one", 1: "two"}


def test_a_hash_leaves_out_its_image_and_every_one_that_looks_like_it() -> None:
    records = [record(0, look=0), record(1, look=1), record(2), record(3, look=0, reason=Reason.TOO_SMALL)]
    found = Excluded({f"{0:064x}": "withdrawn"}, 4).applied(records)
    assert left_out(found) == {0: "withdrawn", 1: "withdrawn", 3: "withdrawn"}
    assert found[2] == records[2]


def test_a_look_leaves_out_copies_of_which_no_hash_is_known() -> None:
    mark = f"{1:016x}:{1:016x}:{0:06x}"
    assert left_out(Excluded({mark: "a copy"}, 4).applied([record(0, look=0), record(1)])) == {0: "a copy"}
    assert left_out(Excluded({mark: "a copy"}, 0).applied([record(0, look=0), record(1)])) == {}


def test_nothing_of_the_pixels_of_an_excluded_image_is_kept() -> None:
    [found] = Excluded({f"{0:064x}": "withdrawn"}, 4).applied([record(0)])
    assert found.features is None


@given(st.lists(looks, max_size=6), st.lists(looks, max_size=6), st.integers(0, 3))
def test_a_look_is_near_to_another_exactly_when_both_are_near_duplicates(
    some: list[Look], others: list[Look], distance: int
) -> None:
    expected = [
        next((n for n, other in enumerate(others) if near_duplicates([look, other], distance) == [0, 0]), None)
        for look in some
    ]
    assert near_any(some, others, distance) == expected


def test_the_setting_and_the_records_of_the_store_go_together_and_into_the_identity(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    one, other = "1" * 64, "https://a.example/x.png"
    add(store, Exclusion(images=[ExcludedImage(name="x", marks=[other])], reason="asked for"))
    excluded = excluded_by(DataPrepSettings(exclude=[one]), store)
    assert excluded.reasons == {one: OF_THE_SETTING, other: "asked for"}
    assert with_all_named(DataPrepSettings(exclude=[one]), excluded).exclude == [one, other]


@pytest.mark.parametrize("mark", ["x.png", "0f" * 31, "ftp://a.example/x.png", "0123:4567:89ab"])
def test_what_no_image_can_be_known_by_is_refused(mark: str) -> None:
    with pytest.raises(ValidationError, match="no sha256, no URL and no look"):
        DataPrepSettings(exclude=[mark])
