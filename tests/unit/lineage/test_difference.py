"""What changed from one data set to another, by the content of the images."""

from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from service.artifacts.kinds import lora
from service.artifacts.kinds.dataset import SPLITS
from service.exits import BadConfiguration, BadData
from service.lineage.difference import FILES, UNTOLD, Count, DatasetDifference, difference
from service.lineage.difference_text import SHOWN, code, markdown, tables
from service.lineage.listing import ListedImage, Listing, listing
from service.storage.interface import NotFound
from service.storage.local import LocalStore
from tests.unit.lineage.records import Published, entry, image, publish

images = st.builds(
    image,
    st.sampled_from("abcdef"),
    st.sampled_from(SPLITS),
    st.sampled_from(["a cat", "a dog"]),
    licence=st.sampled_from([None, "CC0"]),
    origin=st.sampled_from(["https://a.example/x.png", "https://b.example/x.png", "x.png", None]),
)
listings = st.lists(images, max_size=8).map(lambda found: Listing(path="datasets/x/0", images=tuple(found)))
distinct = st.lists(images, max_size=8, unique_by=lambda one: one.sha256).map(
    lambda found: Listing(path="datasets/x/0", images=tuple(found))
)


def listed(*found: ListedImage) -> Listing:
    return Listing(path="datasets/x/0", images=found)


@given(listings)
def test_a_data_set_does_not_differ_from_itself(one: Listing) -> None:
    found = difference(one, one)
    assert found.empty
    assert all(row.before == row.after for row in chain(found.splits, found.hosts, found.licences))


@given(listings, listings)
def test_what_was_added_one_way_is_gone_the_other_way_and_every_change_is_reversed(
    one: Listing, other: Listing
) -> None:
    there, back = difference(one, other), difference(other, one)
    assert [old.model_dump(exclude={"reason"}) for old in there.gone] == [new.model_dump() for new in back.added]
    assert [old.model_dump(exclude={"reason"}) for old in back.gone] == [new.model_dump() for new in there.added]
    assert sorted((c.before, c.after) for c in there.recaptioned) == sorted(
        (c.after, c.before) for c in back.recaptioned
    )
    assert sorted((m.before, m.after) for m in there.moved) == sorted((m.after, m.before) for m in back.moved)
    assert {(r.name, r.before, r.after) for r in there.hosts} == {(r.name, r.after, r.before) for r in back.hosts}
    assert there.empty == back.empty


@given(distinct, distinct)
def test_what_stayed_and_what_came_is_what_there_is_now(one: Listing, other: Listing) -> None:
    found = difference(one, other)
    assert len(one.images) - len(found.gone) + len(found.added) == len(other.images)
    for rows in (found.splits, found.hosts, found.licences):
        assert sum(row.before for row in rows) == len(one.images)
        assert sum(row.after for row in rows) == len(other.images)


@given(listings, listings)
def test_the_record_is_read_as_it_was_written(one: Listing, other: Listing) -> None:
    found = difference(one, other)
    assert DatasetDifference.from_bytes(found.to_bytes(), "here") == found


def test_another_name_of_a_file_changes_nothing_and_other_pixels_under_its_name_do() -> None:
    renamed = image("a").model_copy(update={"file_name": "train/other.png"})
    assert difference(listed(image("a")), listed(renamed)).empty
    replaced = image("b").model_copy(update={"file_name": image("a").file_name})
    found = difference(listed(image("a")), listed(replaced))
    assert ([one.sha256[0] for one in found.gone], [one.sha256[0] for one in found.added]) == (["a"], ["b"])


def test_where_one_data_set_does_not_tell_the_hashes_of_its_pixels_those_of_the_files_are_compared() -> None:
    untold = image("a").model_copy(update={"sha256": ""})
    assert difference(listed(image("a")), listed(untold)).empty
    assert difference(listed(untold), listed(untold, image("b"))).added == [image("b")]


def test_captions_sides_hosts_and_licences_are_told_before_and_after() -> None:
    before = listed(image("a"), image("b", licence="CC0"), image("c", origin="c.png"))
    after = listed(image("a", caption="a dog"), image("b", "validation", licence="CC BY"), image("c", origin="c.png"))
    found = difference(before, after)
    assert [(one.file_name, one.before, one.after) for one in found.recaptioned] == [("train/a.png", "a cat", "a dog")]
    assert [(one.file_name, one.before, one.after) for one in found.moved] == [
        ("validation/b.png", "train", "validation")
    ]
    assert found.splits == [Count(name="train", before=3, after=2), Count(name="validation", before=0, after=1)]
    assert found.hosts == [Count(name="a.example", before=2, after=2), Count(name=FILES, before=1, after=1)]
    # The commonest first.
    assert [(row.name, row.before, row.after) for row in found.licences] == [
        (UNTOLD, 2, 2), ("CC BY", 0, 1), ("CC0", 1, 0),
    ]  # fmt: skip


def test_of_images_of_one_data_set_with_equal_content_the_first_counts() -> None:
    twice = listed(image("a", caption="a dog"), image("a"))
    assert [one.after for one in difference(listed(image("a")), twice).recaptioned] == ["a dog"]
    assert [one.caption for one in difference(listed(), twice).added] == ["a dog"]


def test_of_an_image_that_is_gone_it_is_told_why_the_later_data_set_left_it_out() -> None:
    later = Listing(path="datasets/x/1", images=(), left_out={"https://a.example/a.png": "http_status"})
    found = difference(listed(image("a"), image("b")), later)
    assert [one.reason for one in found.gone] == ["http_status", None]


# For people


def test_the_part_of_a_report_tells_every_change_and_no_more_rows_than_a_person_reads() -> None:
    many = [
        image("a").model_copy(update={"sha256": f"{n:064}", "file_name": f"train/{n}.png"}) for n in range(SHOWN + 3)
    ]
    text = markdown(difference(listed(image("a"), image("b")), listed(*many, image("b", "validation", "a dog"))))
    assert f"{SHOWN + 3} added, 1 gone, 1 recaptioned, 1 moved" in text
    assert "… and 3 more." in text
    assert "| `train` | 2 | 23 | +21 |" in text
    assert "| `validation/b.png` | `a cat` | `a dog` |" in text
    assert "### hosts" not in text


def test_words_of_strangers_neither_link_nor_format_nor_leave_their_cell() -> None:
    caption = "a `cat` | ![x](https://tracker.example/x.png)\n\n# @team <img src=x>"
    text = markdown(difference(listed(), listed(image("a", caption=caption))))
    [row] = [line for line in text.splitlines() if "tracker" in line]
    cell = row.split(" | ")[1]
    assert cell.startswith("`a 'cat' \\")
    assert row.count("`") == 6
    assert code("") == ""


def test_a_terminal_shows_every_image() -> None:
    after = listed(*(image(letter, caption="[red]a cat") for letter in "abc"))
    console = Console(width=160)
    with console.capture() as shown:
        console.print(tables(difference(listed(), after)))
    assert "3 added" in shown.get()
    assert all(f"train/{letter}.png" in shown.get() for letter in "abc")
    assert "[red]a cat" in shown.get()


# Of published data sets


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "artifacts")


def test_published_data_sets_are_compared_by_their_tables(store: LocalStore, tmp_path: Path) -> None:
    kept = entry(0, "https://a.example/0.png", file_name="train/0.png", sha256="0" * 64)
    old = [kept, entry(1, "https://b.example/1.png", file_name="validation/1.png", sha256="1" * 64, licence="CC0")]
    new = [
        kept.model_copy(update={"file_name": "train/other.png"}),
        entry(1, "https://b.example/1.png", reason="http_status", detail="404"),
        entry(2, "https://c.example/2.png", file_name="validation/2.png", sha256="2" * 64),
    ]
    before = publish(store, tmp_path / "old", Published({"train/0.png": "a cat", "validation/1.png": "a dog"}, old))
    after = publish(
        store, tmp_path / "new", Published({"train/other.png": "two, cats", "validation/2.png": "a tree"}, new)
    )
    found = difference(listing(store, before), listing(store, after))
    assert [one.origin for one in found.added] == ["https://c.example/2.png"]
    assert [(one.origin, one.licence, one.reason) for one in found.gone] == [
        ("https://b.example/1.png", "CC0", "http_status")
    ]
    assert [(one.before, one.after) for one in found.recaptioned] == [("a cat", "two, cats")]


def test_a_data_set_without_provenance_is_compared_by_its_files(store: LocalStore, tmp_path: Path) -> None:
    paths = [
        publish(store, tmp_path / name, Published({"train/0.png": "a", f"validation/{name}.png": "b"}))
        for name in ("1", "2")
    ]
    found = difference(*(listing(store, path) for path in paths))
    assert ([one.file_name for one in found.gone], [one.file_name for one in found.added]) == (
        ["validation/1.png"],
        ["validation/2.png"],
    )


def test_what_is_missing_damaged_or_no_data_set_is_told_as_such(store: LocalStore, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="datasets/none/0"):
        listing(store, "datasets/none/0")
    path = publish(store, tmp_path / "one", Published({"train/0.png": "a", "validation/1.png": "b"}))
    store.put(f"{path}/imagefolder/train/metadata.csv", b"other bytes")
    with pytest.raises(BadData, match=r"train/metadata\.csv"):
        listing(store, path)
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora/file").write_bytes(b"x")
    other = lora.write(store, tmp_path / "lora", run_id="r", dataset=path, recipe={}).path
    with pytest.raises(BadConfiguration, match="'dataset' is needed"):
        listing(store, other)
