"""The file that tells how a job ended: JSON of at most 4096 bytes, whatever happened, without a secret."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.__main__ import run
from service.exits import MEANINGS, ExitCode
from service.outcome import (
    MOST_BYTES,
    End,
    add_facts,
    as_json,
    begin,
    ended,
    facts_of,
    note_progress,
    place,
    report_outcome,
    write_outcome,
)
from service.redaction import redacted, redacted_values, secrets_of

LONG = st.builds(lambda part, times: part * times, st.text(max_size=30), st.integers(0, 400))


@given(LONG, st.text(max_size=100))
def test_any_error_gives_valid_json_of_the_size_that_kubernetes_keeps(error: str, run_id: str) -> None:
    content = as_json({"job": "train", "run_id": run_id, "error": error, "next": "n" * 200})
    assert len(content) <= MOST_BYTES
    told = json.loads(content)
    assert told["run_id"] == run_id
    assert error.startswith(told["error"].removesuffix("…"))


def test_a_long_error_is_cut_no_further_than_it_must() -> None:
    assert len(as_json({"job": "train", "error": "e" * 9000})) >= MOST_BYTES - 3


def test_a_failure_is_told_with_its_code_its_name_its_reason_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTCOME_FILE", str(tmp_path / "outcome"))
    monkeypatch.setenv("RUN_ID", "ours-1")
    monkeypatch.setenv("TRAIN_RANK", "none")
    assert run(["train"]) == ExitCode.BAD_CONFIGURATION
    told = json.loads((tmp_path / "outcome").read_text())
    assert {name: told[name] for name in ("job", "run_id", "exit_code", "exit_name")} == {
        "job": "train",
        "run_id": "ours-1",
        "exit_code": 78,
        "exit_name": "BAD_CONFIGURATION",
    }
    assert "TRAIN_RANK" in told["error"]
    assert told["next"] == MEANINGS[ExitCode.BAD_CONFIGURATION].next


def test_the_file_may_be_named_by_a_flag_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTCOME_FILE", "")
    monkeypatch.setenv("ARTIFACTS_URI", str(tmp_path / "artifacts"))
    file = tmp_path / "outcome"
    assert run(["infer", "--run-id", "flagged", "--outcome-file", str(file)]) == ExitCode.MISSING_INPUT
    assert json.loads(file.read_text())["run_id"] == "flagged"


def test_success_is_told_with_what_was_made(tmp_path: Path) -> None:
    write_outcome(tmp_path / "outcome", facts_of("train", End(ExitCode.DONE, result="runs/r/lora"), {}))
    told = json.loads((tmp_path / "outcome").read_text())
    assert (told["exit_code"], told["artifact"]) == (0, "runs/r/lora")
    assert "error" not in told


def test_it_holds_what_the_job_came_to_and_nothing_of_the_job_before(tmp_path: Path) -> None:
    def evaluate() -> str:
        add_facts(decision="hold", reason="nothing is worse")
        return "runs/r/evaluation/1"

    write_outcome(tmp_path / "outcome", facts_of("evaluate", ended(evaluate), {}))
    outcome = json.loads((tmp_path / "outcome").read_text())
    assert (outcome["artifact"], outcome["decision"], outcome["reason"]) == (
        "runs/r/evaluation/1", "hold", "nothing is worse",
    )  # fmt: skip
    write_outcome(tmp_path / "outcome", facts_of("infer", ended(lambda: "runs/r/images/1"), {}))
    assert "decision" not in json.loads((tmp_path / "outcome").read_text())


def test_one_that_is_killed_leaves_what_it_was_at_and_how_far_it_was(tmp_path: Path) -> None:
    file = tmp_path / "outcome"
    file.write_text('{"exit_code": 0, "artifact": "of the attempt before"}')
    program = """
import os, signal
from service.logs import configure_logs, progress_bar
from service.outcome import begin
configure_logs("json")
begin("train", "ours-1")
for step in progress_bar(range(100), "training", 100):
    if step == 55:
        os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "OUTCOME_FILE": str(file)}, check=False, timeout=60
    )
    assert ended.returncode == -signal.SIGKILL
    told = json.loads(file.read_text())
    assert (told["job"], told["run_id"], told["exit_name"]) == ("train", "ours-1", "UNDER_WAY")
    assert (told["doing"], told["done"], told["total"]) == ("training", 50, 100)
    assert "memory" in told["note"]
    assert "error" not in told
    assert "exit_code" not in told


def test_the_end_takes_the_place_of_the_note_whatever_still_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTCOME_FILE", str(tmp_path / "outcome"))
    begin("prune", "ours-1")
    report_outcome("prune", End(ExitCode.DONE))
    note_progress("deleting", 1, 10)
    assert json.loads((tmp_path / "outcome").read_text())["exit_name"] == "DONE"


def test_a_long_fact_is_cut_and_what_to_do_stays() -> None:
    told = json.loads(as_json({"job": "infer", "base": "b" * 5000, "lora": "l" * 3000, "next": "go on"}))
    assert (told["job"], told["next"]) == ("infer", "go on")
    assert told["lora"] == "l" * 3000
    assert told["base"].endswith("…")


def test_in_a_pod_it_goes_where_kubernetes_looks_and_elsewhere_nowhere(tmp_path: Path) -> None:
    message = tmp_path / "termination-log"
    assert place({}, message) is None
    message.touch()
    assert place({}, message) == message
    assert place({"OUTCOME_FILE": "/elsewhere"}, message) == Path("/elsewhere")


def test_a_file_that_cannot_be_written_changes_nothing_about_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OUTCOME_FILE", str(tmp_path / "no" / "such" / "folder"))
    assert run(["trian"]) == ExitCode.BAD_CONFIGURATION
    assert "outcome not written" in capsys.readouterr().err


def test_an_outcome_holds_no_secret(tmp_path: Path) -> None:
    environment = {"AWS_SECRET_ACCESS_KEY": "canary/secret", "https_proxy": "http://me:canary%21word@proxy:3128"}
    error = "ProxyError: http://me:canary%21word@proxy:3128 said canary!word and canary/secret"
    write_outcome(tmp_path / "outcome", facts_of("train", End(ExitCode.BUG, error), environment))
    assert "canary" not in (tmp_path / "outcome").read_text()


NAMES = [
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN",
    "WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "SOMEONES_PASSWORD",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_what_a_variable_is_called_tells_that_it_holds_a_secret(name: str) -> None:
    assert secrets_of({name: "canary-value"}) == ["canary-value"]


def test_variables_that_only_point_to_secrets_and_short_values_are_left_alone() -> None:
    assert secrets_of({"AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/token", "HF_TOKEN": "no", "RUN_ID": "ours-1"}) == []


def test_the_user_of_any_address_is_starred_even_if_no_variable_has_it() -> None:
    assert (
        redacted("see https://someone:word@host/x and s3://bucket/a@b", [])
        == "see https://***@host/x and s3://bucket/a@b"
    )


def test_values_are_starred_at_any_depth() -> None:
    assert redacted_values({"a": ["canary", {"b": "xcanary"}], "c": 3}, ["canary"]) == {
        "a": ["***", {"b": "x***"}],
        "c": 3,
    }


def test_config_shows_no_secret(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    monkeypatch.setenv("MODEL_CLIP", "owner/hf_canary")
    assert run(["config"]) == ExitCode.DONE
    assert "canary" not in capsys.readouterr().out
    assert os.environ["HF_TOKEN"] == "hf_canary"
