"""Captions that lie beside images."""

import unicodedata
from collections import Counter
from collections.abc import Mapping

import pytest
from structlog.testing import capture_logs

from service.dataset.notes import Note
from service.dataset.sources.sidecars import captioned
from service.exits import BadData


def captions_of(files: Mapping[str, str | bytes]) -> dict[str, str | None]:
    """Origin → caption."""
    return read(files)[0]


def read(files: Mapping[str, str | bytes]) -> tuple[dict[str, str | None], Counter[Note]]:
    contents = {name: text.encode() if isinstance(text, str) else text for name, text in files.items()}
    found, notes = captioned(sorted(contents), contents.__getitem__, "ours")
    assert [candidate.rank for candidate in found] == list(range(len(found)))
    return {candidate.origin: candidate.caption for candidate in found}, notes


def test_a_text_file_beside_an_image_is_its_caption() -> None:
    assert captions_of({"a/cat.png": "", "a/cat.txt": " a black cat\n", "b.jpg": ""}) == {
        "a/cat.png": "a black cat",
        "b.jpg": None,
    }


def test_a_text_file_beside_no_image_is_a_candidate_like_any_other() -> None:
    assert captions_of({"notes.txt": "milk", "a.png": ""}) == {"a.png": None, "notes.txt": None}


def test_a_table_captions_the_files_of_its_folder() -> None:
    table = 'file_name,caption\ncat.png,a cat\nsub/dog.png,"a dog, sitting"\nlost.png,nothing\n'
    files = {"x/cat.png": "", "x/sub/dog.png": "", "cat.png": "", "x/metadata.csv": table}
    assert captions_of(files) == {"cat.png": None, "x/cat.png": "a cat", "x/sub/dog.png": "a dog, sitting"}


def test_the_text_file_is_nearer_than_the_table() -> None:
    files = {"cat.png": "", "cat.txt": "mine", "metadata.csv": "\ufefffile_name,text\ncat.png,theirs\n"}
    assert captions_of(files) == {"cat.png": "mine"}


@pytest.mark.parametrize("table", ["", "name,words\ncat.png,a cat\n", "file_name,caption\ncat.png\n"])
def test_a_table_without_captions_costs_no_image(table: str) -> None:
    with capture_logs():
        assert captions_of({"cat.png": "", "metadata.csv": table}) == {"cat.png": None}


@pytest.mark.parametrize("name", ["cat.caption", "cat.png.txt", "cat.TXT", "CAT.txt", "cat.png.caption", "Cat.PNG.Txt"])
def test_a_text_file_is_found_however_tools_name_it(name: str) -> None:
    assert read({"cat.png": "", name: "a cat"}) == ({"cat.png": "a cat"}, Counter())
    assert captions_of({"x/Cat.PNG": "", f"x/{name}": "a cat"}) == {"x/Cat.PNG": "a cat"}


def test_the_text_that_names_the_image_whole_is_nearer_and_what_is_not_read_is_counted() -> None:
    files = {"cat.png": "", "cat.jpg": "", "cat.png.txt": "whole", "cat.txt": "stem", "cat.caption": "other"}
    captions, notes = read(files)
    assert captions == {"cat.png": "whole", "cat.jpg": "stem"}
    assert notes == {Note.UNREAD_CAPTION_FILES: 1}


def test_names_that_differ_in_case_alone_are_two_images_each_with_its_text() -> None:
    files = {"a.png": "", "A.png": "", "a.txt": "small", "A.txt": "large"}
    assert captions_of(files) == {"a.png": "small", "A.png": "large"}


def test_files_that_look_like_captions_are_warned_about_once_by_name() -> None:
    files = {
        "a.png": "",
        "a.json": "{}",
        "tags.csv": "x",
        "captions.jsonl": "{}",
        "notes.txt": "milk",
        "b.caption": "b",
    }
    with capture_logs() as events:
        _, notes = read(files)
    assert notes == {Note.UNREAD_CAPTION_FILES: 5}
    [warning] = events
    assert warning["unread_caption_files"] == 5
    assert set(warning["files"]) <= set(files)


def test_an_empty_text_file_does_not_hide_what_the_table_says() -> None:
    assert captions_of({"a.png": "", "a.txt": " ", "metadata.csv": "file_name,text\na.png,a cat\n"}) == {
        "a.png": "a cat"
    }


JSON_LINES = (
    '{"file_name": "a.png", "text": "a red boat, at sea", "n": {"n": [1]}}\n\n{"file_name": "b.png", "text": 8}\n'
)


@pytest.mark.parametrize("name", ["metadata.jsonl", "Metadata.JSONL", "metadata.csv"])
def test_json_lines_are_read_like_a_csv_file(name: str) -> None:
    assert read({"a.png": "", "b.png": "", name: JSON_LINES}) == (
        {"a.png": "a red boat, at sea", "b.png": "8"},
        Counter(),
    )


def test_the_nearest_table_wins_whatever_its_name() -> None:
    files = {
        "z/a.png": "",
        "z/metadata.jsonl": '{"file_name": "a.png", "caption": "near"}',
        "metadata.csv": "file_name,caption\nz/a.png,far\n",
    }
    assert read(files) == ({"z/a.png": "near"}, Counter())
    assert captions_of({name.replace("z/", "b/"): text.replace("z/", "b/") for name, text in files.items()}) == {
        "b/a.png": "near"
    }


def test_two_tables_of_one_folder_that_disagree_are_counted() -> None:
    files = {
        "a.png": "",
        "metadata.csv": "file_name,caption\na.png,one\n",
        "metadata.jsonl": '{"file_name": "a.png", "caption": "other"}',
    }
    assert read(files) == ({"a.png": "one"}, {Note.CAPTIONED_TWICE: 1})


@pytest.mark.parametrize(
    ("image", "written"),
    [
        (unicodedata.normalize("NFD", "caf\u00e9.png"), "caf\u00e9.png"),
        ("caf\u00e9.png", unicodedata.normalize("NFD", "caf\u00e9.png")),
        ("sub/a.png", "sub\\a.png"),
        ("sub/a.png", "Sub\\A.PNG"),
        ("a.JPG", "a.jpg"),
        ("a.png", "./a.png"),
        ("sub/a.png", "sub/../sub/a.png"),
    ],
)
def test_a_table_may_write_names_as_another_system_does(image: str, written: str) -> None:
    for table in (f"file_name,caption\n{written},a cat\n", f"file_name\tcaption\n{written}\ta cat\n"):
        assert read({f"x/{image}": "", "x/metadata.csv": table}) == ({f"x/{image}": "a cat"}, Counter())


def test_a_text_file_may_be_named_as_another_system_does() -> None:
    composed, apart = "caf\u00e9", unicodedata.normalize("NFD", "caf\u00e9")
    assert captions_of({f"{composed}.png": "", f"{apart}.txt": "a cat"}) == {f"{composed}.png": "a cat"}


def test_rows_that_name_no_image_and_images_named_twice_are_counted_and_the_first_stays() -> None:
    table = "file_name,caption\na.png,one\nlost.png,x\na.png,two\nb.png,same\nb.png,same\n,nobody\nA.PNG,three\n"
    with capture_logs() as events:
        captions, notes = read({"a.png": "", "b.png": "", "metadata.csv": table})
    assert captions == {"a.png": "one", "b.png": "same"}
    assert notes == {Note.ROWS_WITHOUT_IMAGE: 2, Note.CAPTIONED_TWICE: 2}
    assert [event["log_level"] for event in events].count("warning") == 1


def test_a_name_that_could_mean_two_images_means_none() -> None:
    assert read({"a.png": "", "A.png": "", "metadata.csv": "file_name,caption\na.PNG,x\n"}) == (
        {"a.png": None, "A.png": None},
        {Note.ROWS_WITHOUT_IMAGE: 1},
    )


@pytest.mark.parametrize("name", ["a.txt", "metadata.csv", "metadata.jsonl"])
def test_a_sidecar_that_is_no_text_is_refused_by_name(name: str) -> None:
    with pytest.raises(BadData, match=f"ours/{name}.* at byte 2"):
        read({"a.png": "", name: b"a \0"})
