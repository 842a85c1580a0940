"""Users' own images, and the captions beside them."""

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.dataset.sources.folders import FolderSource
from service.dataset.sources.sidecars import captioned


def told(files: dict[str, str]) -> dict[str, str | None]:
    """Origin → caption."""
    found = captioned(sorted(files), lambda name: files[name].encode())
    assert [candidate.rank for candidate in found] == list(range(len(found)))
    return {candidate.origin: candidate.caption for candidate in found}


def test_a_text_file_beside_an_image_is_its_caption() -> None:
    assert told({"a/cat.png": "", "a/cat.txt": " a black cat\n", "b.jpg": ""}) == {
        "a/cat.png": "a black cat",
        "b.jpg": None,
    }


def test_a_text_file_beside_no_image_is_a_candidate_like_any_other() -> None:
    assert told({"notes.txt": "milk", "a.png": ""}) == {"a.png": None, "notes.txt": None}


def test_a_table_captions_the_files_of_its_folder() -> None:
    table = 'file_name,caption\ncat.png,a cat\nsub/dog.png,"a dog, sitting"\nlost.png,nothing\n'
    files = {"x/cat.png": "", "x/sub/dog.png": "", "cat.png": "", "x/metadata.csv": table}
    assert told(files) == {"cat.png": None, "x/cat.png": "a cat", "x/sub/dog.png": "a dog, sitting"}


def test_the_text_file_is_nearer_than_the_table() -> None:
    files = {"cat.png": "", "cat.txt": "mine", "metadata.csv": "\ufefffile_name,text\ncat.png,theirs\n"}
    assert told(files) == {"cat.png": "mine"}


@pytest.mark.parametrize(
    "table", ["", "name,words\ncat.png,a cat\n", "file_name,caption\ncat.png\n", "file_name,caption\n\0"]
)
def test_a_table_without_captions_costs_no_image(table: str) -> None:
    with capture_logs():
        assert told({"cat.png": "", "metadata.csv": table}) == {"cat.png": None}


def test_the_state_of_a_folder_changes_with_every_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"one")
    states = [FolderSource(tmp_path).state()]
    assert FolderSource(tmp_path).state() == states[0]
    (tmp_path / "b.png").write_bytes(b"two")
    states.append(FolderSource(tmp_path).state())
    (tmp_path / "b.png").write_bytes(b"six")
    os.utime(tmp_path / "b.png", (1, 1))
    states.append(FolderSource(tmp_path).state())
    (tmp_path / "a.png").unlink()
    states.append(FolderSource(tmp_path).state())
    assert len(set(states)) == 4
