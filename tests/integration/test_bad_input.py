"""Bad input gets one clear line and the right exit code, and loses nothing."""

import os
from pathlib import Path

import pytest

from service.exits import ExitCode
from tests.integration.chain import finish
from tests.servers import S3Server, refusing_server

MINIATURE = {"MODEL_BASE": "miniature", "HF_HUB_OFFLINE": "1", "DATA_PREP_SOURCE": "folder"}


def failure(job: str, folder: Path, variables: dict[str, str], code: ExitCode) -> str:
    """The one line with which the job must end, after the check of its exit code."""
    end = finish(job, folder, MINIATURE | variables)
    assert end.code == code, end.events
    assert not list((folder / "artifacts").rglob("MANIFEST.json"))
    failed = [event for event in end.events if event["event"] == "failed"]
    assert len(failed) == 1
    assert failed[0]["exit_code"] == code
    assert "exception" not in failed[0]
    assert "\n" not in failed[0]["error"]
    return str(failed[0]["error"])


def test_an_empty_folder_is_bad_data(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    error = failure("data-prep", tmp_path, {"DATA_PREP_FOLDER": str(tmp_path / "images")}, ExitCode.BAD_DATA)
    assert str(tmp_path / "images") in error


def test_a_folder_that_does_not_exist_is_missing_input(tmp_path: Path) -> None:
    error = failure("data-prep", tmp_path, {"DATA_PREP_FOLDER": str(tmp_path / "none")}, ExitCode.MISSING_INPUT)
    assert "DATA_PREP_FOLDER" in error


def test_a_folder_of_broken_images_is_bad_data_that_counts_the_reasons(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(3):
        (tmp_path / "images" / f"{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    error = failure("data-prep", tmp_path, {"DATA_PREP_FOLDER": str(tmp_path / "images")}, ExitCode.BAD_DATA)
    assert "3" in error


def test_too_few_images_are_bad_data_that_names_the_limit(tmp_path: Path) -> None:
    variables = {"DATA_PREP_FOLDER": "miniature", "DATA_PREP_LIMIT": "5", "DATA_PREP_MIN_IMAGES": "6"}
    error = failure("data-prep", tmp_path, variables, ExitCode.BAD_DATA)
    assert "DATA_PREP_MIN_IMAGES" in error


def test_training_without_a_data_set_is_missing_input_that_says_what_to_do(tmp_path: Path) -> None:
    assert "run data-prep" in failure("train", tmp_path, {}, ExitCode.MISSING_INPUT)


@pytest.mark.parametrize("job", ["infer", "evaluate"])
def test_without_a_lora_there_is_nothing_to_draw_or_to_judge(job: str, tmp_path: Path) -> None:
    assert "runs/local/lora" in failure(job, tmp_path, {}, ExitCode.MISSING_INPUT)


def test_an_unknown_model_is_named_with_its_variable(tmp_path: Path) -> None:
    captioner = {"MODEL_CAPTIONER": "nobody/nothing", "DATA_PREP_FOLDER": "miniature", "DATA_PREP_LIMIT": "12"}
    assert "MODEL_CAPTIONER=nobody/nothing" in failure("data-prep", tmp_path, captioner, ExitCode.MISSING_INPUT)


def test_a_bucket_that_does_not_exist_is_missing_input(tmp_path: Path, rclone: S3Server) -> None:
    variables = rclone.environment | {"ARTIFACTS_URI": "s3://no-such-bucket/x"}
    assert "no-such-bucket" in failure("train", tmp_path, variables, ExitCode.MISSING_INPUT)


def test_refused_credentials_are_never_taken_for_an_empty_bucket(tmp_path: Path) -> None:
    with refusing_server(403, "AccessDenied") as server:
        variables = server.environment | {"ARTIFACTS_URI": "s3://bucket/x"}
        assert "bucket" in failure("train", tmp_path, variables, ExitCode.ACCESS_DENIED)


def test_a_full_disk_is_named_and_what_was_published_before_stays(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    assert os.system(f"mount -t tmpfs -o size=300k tmpfs {small}") == 0
    try:
        variables = {"DATA_PREP_FOLDER": "miniature", "ARTIFACTS_URI": str(small / "artifacts")}
        error = failure("data-prep", tmp_path, variables, ExitCode.INPUT_OUTPUT)
        assert str(small) in error
        assert not list(small.rglob("MANIFEST.json"))
    finally:
        os.system(f"umount {small}")
