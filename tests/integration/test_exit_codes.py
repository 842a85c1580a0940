"""Every job ends in the exit code that fits, whatever it meets; the reason is one line, and the outcome says the same."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from service.__main__ import run
from service.artifacts.publishing import publish
from service.exits import ExitCode
from service.settings.catalogue import JOBS
from service.storage.opening import open_store
from tests.conftest import use
from tests.servers import S3Server, environment_for, free_port, refusing_server

DATASET = "datasets/few/1"
LORA = "loras/one"
# One that each job reads, and the value that it refuses.
REFUSED = {
    "data-prep": ("DATA_PREP_LIMIT", "0"),
    "train": ("TRAIN_RANK", "0"),
    "infer": ("INFER_STEPS", "0"),
    "evaluate": ("EVALUATE_STEPS", "0"),
    "promote": ("PROMOTE_EVALUATION", "/no/path"),
    "rollback": ("ROLLBACK_TO", "0"),
    "retire": ("PROMOTE_MODEL", "no/name"),
    "champion": ("CHAMPION_ON", "yesterday"),
    "retrain": ("PRICE_PER_HOUR", "-1"),
    "demo": ("RUN_ID", "no/name"),
    "prefetch": ("PREFETCH_JOBS", "nothing"),
    "prune": ("PRUNE_KEEP_LAST", "0"),
    "diff": ("DIFF_BEFORE", "/no/path"),
    "trace": ("TRACE_LOOK_ALIKES", "perhaps"),
    "reproduce": ("REPRODUCE_STORE", "http://a.example"),
    "doctor": ("DOCTOR_MIN_DISK_GIB", "0"),
    "config": ("TRAIN_RANK", "0"),
}
WITH_A_STORE = [job for job in JOBS if job != "config"]
CHAIN = ["data-prep", "train", "infer", "evaluate"]


@dataclass
class Ending:
    """Runs jobs in this process, on the miniature, and gives the line with which each of them ends."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def __call__(self, job: str, code: ExitCode, **variables: str) -> str:
        outcome = self.folder / "outcome.json"
        known = {
            "MODEL_BASE": "miniature",
            "DATA_PREP_SOURCE": "folder",
            "DATA_PREP_FOLDER": "miniature",
            "TRAIN_DATASET": DATASET,
            "TRAIN_PROFILE": "miniature",
            "DIFF_BEFORE": DATASET,
            "DIFF_AFTER": DATASET,
            "REPRODUCE_EVALUATION": "runs/local/evaluation/000000000000",
            "TRACE_IMAGE": "https://a.example/x.png",
            "DOCTOR_MIN_DISK_GIB": "0.01",
            "PROMOTE_MODEL": "pixel-art",
            "RETIRE_LORAS": LORA,
            "RETIRE_REASON": "a reason",
            "ARTIFACTS_URI": str(self.folder / "artifacts"),
            "WORK_DIR": str(self.folder / "work"),
            "OUTCOME_FILE": str(outcome),
            "AWS_MAX_ATTEMPTS": "1",
            "LOG_FORMAT": "json",
        }
        for name, value in (known | variables).items():
            self.monkeypatch.setenv(name, value)
        ended = run([job])
        said = self.capsys.readouterr()
        assert ended == code, said.err
        [failed] = [event for event in map(json.loads, said.err.splitlines()) if event["event"] == "failed"]
        assert "exception" not in failed
        assert "\n" not in failed["error"]
        told = json.loads(outcome.read_text())
        assert (failed["exit_code"], told["exit_code"], told["exit_name"]) == (code, code, code.name)
        assert told["error"] == failed["error"]
        error: str = failed["error"]
        return error


@pytest.fixture
def ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ending:
    return Ending(tmp_path, monkeypatch, capsys)


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """A volume that cannot be written to."""
    folder = tmp_path / "closed"
    folder.mkdir()
    assert os.system(f"mount -t tmpfs -o ro tmpfs {folder}") == 0
    yield folder
    os.system(f"umount {folder}")


def publish_inputs(uri: str, folder: Path) -> None:
    """A data set and a LoRA that are whole as artifacts, which is all that is looked at before they are used."""
    for name in ("dataset", "lora"):
        (folder / name).mkdir()
        (folder / name / "content.bin").write_bytes(b"some bytes")
    store: Any = open_store(uri)
    publish(store, folder / "dataset", kind="dataset", path=DATASET)
    publish(store, folder / "lora", kind="lora", path=LORA, parents=[DATASET], settings={"resolution": 64})


def test_every_job_has_a_row_in_the_table() -> None:
    assert set(REFUSED) == set(JOBS)


@pytest.mark.parametrize("job", JOBS)
def test_a_misspelt_variable_and_a_refused_value_are_78(job: str, ending: Ending) -> None:
    assert "TRAIN_MAX_STEPS" in ending(job, ExitCode.BAD_CONFIGURATION, TRAIN_MAX_STEP="10")
    ending.monkeypatch.delenv("TRAIN_MAX_STEP")
    variable, value = REFUSED[job]
    assert variable in ending(job, ExitCode.BAD_CONFIGURATION, **{variable: value})


@pytest.mark.parametrize("job", WITH_A_STORE)
def test_refused_credentials_are_77(job: str, ending: Ending) -> None:
    with refusing_server(403, "AccessDenied") as server:
        assert "refused" in ending(
            job, ExitCode.ACCESS_DENIED, ARTIFACTS_URI="s3://bucket/x", TRAIN_DATASET="", **server.environment
        )


@pytest.mark.parametrize("job", WITH_A_STORE)
def test_a_store_that_does_not_answer_is_69(job: str, ending: Ending) -> None:
    environment = environment_for(free_port())
    error = ending(job, ExitCode.STORAGE_UNREACHABLE, ARTIFACTS_URI="s3://bucket/x", TRAIN_DATASET="", **environment)
    assert environment["AWS_ENDPOINT_URL"] in error


@pytest.mark.parametrize(
    "job",
    [
        "data-prep",
        "train",
        "evaluate",
        "promote",
        "rollback",
        "retire",
        "champion",
        "prune",
        "diff",
        "trace",
        "reproduce",
        "doctor",
    ],
)
def test_a_missing_bucket_is_66(job: str, ending: Ending, rclone: S3Server) -> None:
    error = ending(job, ExitCode.MISSING_INPUT, ARTIFACTS_URI="s3://no-such-bucket/x", **rclone.environment)
    assert "no-such-bucket" in error


@pytest.mark.parametrize(
    ("job", "variables", "told"),
    [
        ("data-prep", {"DATA_PREP_FOLDER": "/no/such/folder"}, "DATA_PREP_FOLDER"),
        ("train", {"TRAIN_DATASET": ""}, "run data-prep"),
        ("infer", {}, "runs/local/lora"),
        ("evaluate", {}, "runs/local/lora"),
        ("infer", {"INFER_LORA": "registry:pixel-art"}, "pixel-art"),
        ("promote", {}, "run evaluate"),
        ("rollback", {}, "nothing to roll back"),
        ("retire", {}, "RETIRE_LORAS"),
        ("champion", {}, "PROMOTE_MODEL"),
        ("prune", {}, "RUN_ID"),
        ("diff", {}, DATASET),
        ("reproduce", {}, "runs/local/evaluation/000000000000"),
        ("trace", {"TRACE_IMAGE": "/no/such/file.png"}, "TRACE_IMAGE"),
        ("doctor", {"MODEL_CLIP": "/no/such/folder"}, "MODEL_CLIP"),
    ],
)
def test_a_missing_input_is_66(job: str, variables: dict[str, str], told: str, ending: Ending) -> None:
    assert told in ending(job, ExitCode.MISSING_INPUT, **variables)


@pytest.mark.parametrize("job", CHAIN)
def test_a_damaged_artifact_is_65_and_named_with_its_file(job: str, ending: Ending) -> None:
    uri = str(ending.folder / "artifacts")
    publish_inputs(uri, ending.folder)
    damaged = DATASET if job in ("data-prep", "train") else LORA
    open_store(uri).put(f"{damaged}/content.bin", b"other byte")
    error = ending(job, ExitCode.BAD_DATA, DATA_PREP_FOLDER=DATASET, INFER_LORA=LORA, EVALUATE_LORA=LORA)
    assert f"{damaged} is damaged: content.bin" in error


@pytest.mark.parametrize("job", ["data-prep", "demo", "doctor"])
def test_a_read_only_store_is_74(job: str, ending: Ending, closed: Path) -> None:
    assert "ARTIFACTS_URI" in ending(job, ExitCode.INPUT_OUTPUT, ARTIFACTS_URI=str(closed / "artifacts"))


@pytest.mark.parametrize("job", ["train", "infer", "evaluate", "doctor"])
def test_a_read_only_work_dir_is_74(job: str, ending: Ending, closed: Path, moto: S3Server) -> None:
    use(moto, ending.monkeypatch)
    uri = f"s3://{moto.new_bucket()}"
    publish_inputs(uri, ending.folder)
    variables = {"ARTIFACTS_URI": uri, "WORK_DIR": str(closed / "work"), "INFER_LORA": LORA, "EVALUATE_LORA": LORA}
    assert "WORK_DIR" in ending(job, ExitCode.INPUT_OUTPUT, **variables)
