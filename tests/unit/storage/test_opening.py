"""A single file that a setting names."""

from pathlib import Path

import pytest

from service.exits import BadConfiguration, MissingInput
from service.storage.opening import read_file_at


def test_a_file_is_read_and_one_that_is_not_there_is_told_with_its_setting(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(b"url\n")
    assert read_file_at(str(tmp_path / "list.csv"), "A_SETTING") == b"url\n"
    with pytest.raises(MissingInput, match=r"A_SETTING=.*none\.csv"):
        read_file_at(str(tmp_path / "none.csv"), "A_SETTING")


@pytest.mark.parametrize("place", ["s3://bucket", "s3://bucket/folder/"])
def test_a_bucket_or_a_folder_of_one_is_no_file(place: str) -> None:
    with pytest.raises(BadConfiguration, match=f"A_SETTING={place} names no file"):
        read_file_at(place, "A_SETTING")
