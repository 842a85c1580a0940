"""Which candidates are accepted, and the record of those that are not."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from service.dataset.candidates import Candidate, Reason, Rejection
from service.dataset.screening import screen
from service.settings.data_prep import DataPrepSettings


def picture(folder: Path, name: str, shade: int, size: tuple[int, int] = (40, 40)) -> Candidate:
    Image.new("RGB", size, (shade, 0, 0)).save(folder / name)
    return Candidate(name, lambda: folder / name)


def settings(tmp_path: Path, **values: object) -> DataPrepSettings:
    return DataPrepSettings.model_validate({"source": "folder", "folder": str(tmp_path), **values})


def test_the_same_pixels_in_another_format_are_a_duplicate(tmp_path: Path) -> None:
    candidates = [picture(tmp_path, "a.png", 9), picture(tmp_path, "b.bmp", 9), picture(tmp_path, "c.png", 10)]
    records = screen(candidates, settings(tmp_path), tmp_path / "accepted")
    assert [record.reason for record in records] == [None, Reason.DUP_EXACT, None]
    assert records[1].sha256 == records[0].sha256


def test_the_same_bytes_in_another_shape_are_no_duplicate(tmp_path: Path) -> None:
    candidates = [picture(tmp_path, "a.png", 9, (40, 80)), picture(tmp_path, "b.png", 9, (80, 40))]
    assert [record.reason for record in screen(candidates, settings(tmp_path), tmp_path / "x")] == [None, None]


@pytest.mark.parametrize("size", [(1, 1), (31, 400), (400, 31)])
def test_an_image_with_a_short_side_is_too_small(size: tuple[int, int], tmp_path: Path) -> None:
    (record,) = screen([picture(tmp_path, "a.png", 9, size)], settings(tmp_path), tmp_path / "x")
    assert record.reason == Reason.TOO_SMALL


def test_every_candidate_of_a_folder_has_a_record_when_the_limit_is_reached(tmp_path: Path) -> None:
    candidates = [picture(tmp_path, f"{index:02}.png", index) for index in range(30)]
    records = screen(candidates, settings(tmp_path, limit=3), tmp_path / "x")
    assert [record.origin for record in records] == [candidate.origin for candidate in candidates]
    assert [record.reason for record in records] == [None] * 3 + [Reason.LIMIT_REACHED] * 27


def test_a_search_is_not_asked_for_more_once_the_limit_is_reached(tmp_path: Path) -> None:
    asked = []

    def endless() -> Iterator[Candidate]:
        while True:
            asked.append(len(asked))
            yield picture(tmp_path, f"{len(asked)}.png", len(asked))

    records = screen(endless(), settings(tmp_path, limit=3), tmp_path / "x")
    assert len(records) == len(asked) < 20


def test_a_rejection_while_reading_is_recorded_and_other_failures_are_raised(tmp_path: Path) -> None:
    def refused() -> bytes:
        raise Rejection(Reason.ROBOTS_NOAI)

    def broken() -> bytes:
        raise RuntimeError("a bug")

    (record,) = screen([Candidate("a", refused)], settings(tmp_path), tmp_path / "x")
    assert record.reason == Reason.ROBOTS_NOAI
    with pytest.raises(RuntimeError, match="a bug"):
        screen([Candidate("a", broken)], settings(tmp_path), tmp_path / "x")


def test_written_images_carry_no_metadata(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(
        tmp_path / "a.jpg", dpi=(300, 300), comment=b"secret", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0"
    )
    (record,) = screen([Candidate("a.jpg", lambda: tmp_path / "a.jpg")], settings(tmp_path), tmp_path / "x")
    assert record.image is not None
    with Image.open(record.image) as written:
        written.load()
        assert written.info == {}
