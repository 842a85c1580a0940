"""Images in, a decision out: the same LoRA wherever it is stored and however often it is killed."""

import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from service.artifacts.publishing import list_artifacts
from service.exits import ExitCode
from service.settings.demo import DEMO_VARIABLES
from service.storage.opening import open_store
from tests.conftest import STORES, use
from tests.integration.chain import SECONDS, SMALL, events_of, finish, finish_killed, lora_bytes
from tests.servers import S3Server

KILLS = 5


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    variables = SMALL | {"HF_HUB_OFFLINE": "1", "OUTCOME_FILE": str(folder / "outcome")}
    assert finish("demo", folder, variables).code == ExitCode.DONE
    return folder


def copied(finished: Path, folder: Path) -> Path:
    shutil.copytree(finished / "artifacts", folder / "artifacts")
    return folder


def test_progress_is_a_line_for_each_tenth_and_little_else_is_said(undisturbed: Path) -> None:
    said = min(undisturbed.glob("demo-*.log"), key=lambda file: file.stat().st_mtime)
    events = events_of(said.read_text())
    progress = Counter(event["what"] for event in events if event["event"] == "progress")
    assert {"collecting", "captioning", "encoding images", "training", "drawing with the LoRA"} <= progress.keys()
    assert max(progress.values()) <= 10
    assert sum(event["level"] != "debug" and event["event"] != "progress" for event in events) < 60


def test_in_a_process_of_its_own_a_job_says_nothing_but_events(undisturbed: Path, tmp_path: Path) -> None:
    places = {"ARTIFACTS_URI": str(copied(undisturbed, tmp_path) / "artifacts"), "WORK_DIR": str(tmp_path / "work")}
    variables = DEMO_VARIABLES | SMALL | places | {"INFER_PROMPTS": "a dog\na boat", "LOG_LEVEL": "debug"}
    ended = subprocess.run(
        [sys.executable, "-m", "service", "infer"],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert ended.returncode == ExitCode.DONE, ended.stderr
    assert ended.stdout == ""
    assert [line for line in ended.stderr.splitlines() if not line.startswith("{")] == []
    events = events_of(ended.stderr)
    assert [event for event in events if event["event"] == "library warns"] == []
    assert [event["done"] for event in events if event["event"] == "progress"] == [1, 1]


def test_the_outcome_has_the_facts_of_each_job(undisturbed: Path) -> None:
    told = json.loads((undisturbed / "outcome").read_text())
    assert (told["images"], told["own_captions"], told["steps"], told["pictures"]) == (24, 0, 12, 2)
    assert told["candidates"] == 24 + sum(told["left_out"].values())
    assert 0 < told["held_out"] < told["images"]
    [dataset] = list_artifacts(open_store(str(undisturbed / "artifacts")), "datasets")
    assert told["version"] == dataset.rpartition("/")[2]
    assert (told["base"], told["lora"], told["lora_scale"]) == ("miniature", "runs/demo/lora", 1.0)
    assert told["held_out_ratio"] > 0
    assert told["decision"] in ("promote", "hold", "reject")
    assert told["page"] == f"{told['artifact']}/index.html"


def test_away_from_a_terminal_every_line_is_json_and_the_last_one_says_the_decision_and_where_to_look(
    undisturbed: Path,
) -> None:
    again = finish("demo", undisturbed, SMALL)
    last = again.events[-1]
    assert last["event"] == "demo finished"
    assert last["decision"] in ("promote", "hold", "reject")
    assert last["reason"]
    assert Path(last["picture"]).read_bytes().startswith(b"\x89PNG")
    assert "<html" in Path(last["page"]).read_text()


def test_a_finished_chain_is_not_done_again(undisturbed: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (undisturbed / "artifacts" / "runs").rglob("MANIFEST.json")}
    assert finish("demo", undisturbed, SMALL).code == ExitCode.DONE
    after = {path: path.stat().st_mtime_ns for path in (undisturbed / "artifacts" / "runs").rglob("MANIFEST.json")}
    assert after == before


def test_killed_at_any_moment_and_started_again_the_chain_ends_with_the_same_lora(
    undisturbed: Path, tmp_path: Path
) -> None:
    moments = random.Random(20)
    for _ in range(KILLS):
        last_event = moments.randint(2, 16)
        assert finish_killed("demo", tmp_path, SMALL, lambda number, _, last=last_event: number == last)
    assert finish("demo", tmp_path, SMALL).code == ExitCode.DONE
    assert lora_bytes(tmp_path) == lora_bytes(undisturbed)


def test_training_killed_after_a_checkpoint_goes_on_from_it(undisturbed: Path, tmp_path: Path) -> None:
    variables = DEMO_VARIABLES | SMALL
    assert finish("data-prep", tmp_path, variables).code == ExitCode.DONE
    assert finish_killed("train", tmp_path, variables, lambda _, line: "checkpoint committed" in line)
    end = finish("train", tmp_path, variables)
    assert end.last("resumed")["step"] >= 4
    assert lora_bytes(tmp_path) == lora_bytes(undisturbed)


@pytest.mark.parametrize("server_name", [name for name in STORES if name != "local"])
def test_on_s3_the_chain_makes_the_same_lora_byte_for_byte(
    server_name: str,
    undisturbed: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server: S3Server = request.getfixturevalue(server_name)
    uri = f"s3://{server.new_bucket()}/team"
    end = finish("demo", tmp_path, SMALL | server.environment | {"ARTIFACTS_URI": uri})
    assert end.code == ExitCode.DONE
    assert end.events[-1]["page"].startswith(uri)
    use(server, monkeypatch)
    lora = open_store(uri).get("runs/demo/lora/pytorch_lora_weights.safetensors")
    assert lora == lora_bytes(undisturbed)


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_serves(undisturbed: Path, tmp_path: Path) -> None:
    training = DEMO_VARIABLES | SMALL
    training |= {"ARTIFACTS_URI": str(tmp_path / "artifacts")}
    copy_run(undisturbed, tmp_path)
    # A slow disk may have made of two checkpoints that waited for it one.
    *_, before, newest = sorted((tmp_path / "artifacts" / "runs" / "demo" / "checkpoints").iterdir())
    file = next(newest.rglob("lora.safetensors"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    end = finish("train", tmp_path, training)
    assert "lora.safetensors" in end.last("checkpoint set aside")["reason"]
    assert end.last("resumed")["step"] == int(before.name.removeprefix("step-"))
    assert lora_bytes(tmp_path) == lora_bytes(undisturbed)


def test_with_every_checkpoint_damaged_training_stops_rather_than_start_over(undisturbed: Path, tmp_path: Path) -> None:
    copy_run(undisturbed, tmp_path)
    for file in (tmp_path / "artifacts" / "runs" / "demo" / "checkpoints").rglob("lora.safetensors"):
        file.write_bytes(b"")
    training = DEMO_VARIABLES | SMALL
    assert finish("train", tmp_path, training).code == ExitCode.BAD_DATA


def test_a_run_is_not_continued_with_other_settings(undisturbed: Path, tmp_path: Path) -> None:
    copy_run(undisturbed, tmp_path)
    training = DEMO_VARIABLES | SMALL | {"TRAIN_RANK": "8"}
    end = finish("train", tmp_path, training)
    assert end.code == ExitCode.BAD_CONFIGURATION
    assert "RANK (16 there, 8 now)" in end.last("failed")["error"]


def copy_run(source: Path, target: Path) -> None:
    """The data set and the checkpoints of a run, without the LoRA that came of them."""
    shutil.copytree(source / "artifacts", target / "artifacts")
    shutil.rmtree(target / "artifacts" / "runs" / "demo" / "lora")
