"""Captions that lie beside images."""

import pytest
from structlog.testing import capture_logs

from service.dataset.sources.sidecars import captioned


def captions_of(files: dict[str, str]) -> dict[str, str | None]:
    """Origin → caption."""
    found = captioned(sorted(files), lambda name: files[name].encode())
    assert [candidate.rank for candidate in found] == list(range(len(found)))
    return {candidate.origin: candidate.caption for candidate in found}


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


@pytest.mark.parametrize(
    "table", ["", "name,words\ncat.png,a cat\n", "file_name,caption\ncat.png\n", "file_name,caption\n\0"]
)
def test_a_table_without_captions_costs_no_image(table: str) -> None:
    with capture_logs():
        assert captions_of({"cat.png": "", "metadata.csv": table}) == {"cat.png": None}
