"""A limit of time, on the real chain: the best LoRA so far is there, marked; a higher limit goes on to the very same LoRA."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from service.artifacts.kinds import lora
from service.artifacts.notes import Attempt
from service.artifacts.runs import Run
from service.exits import ExitCode
from service.settings.demo import DEMO_VARIABLES
from service.storage.opening import open_store
from service.training.costs import spent_before
from tests.integration.chain import SMALL, End, finish, finish_killed, lora_bytes

VARIABLES = DEMO_VARIABLES | SMALL | {"OMP_NUM_THREADS": "1", "TRAIN_STATUS_SECONDS": "0.05", "PRICE_PER_HOUR": "2"}
TEN_HOURS = {"TRAIN_MAX_HOURS": "10"}


def outcome(folder: Path, job: str, **variables: str) -> tuple[End, dict[str, Any]]:
    end = finish(job, folder, VARIABLES | {"OUTCOME_FILE": str(folder / "outcome")} | variables)
    return end, dict(json.loads((folder / "outcome").read_text()))


@pytest.fixture(scope="module")
def capped(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed after its first checkpoint, whose earlier attempts have taken ten hours, and was then capped."""
    folder = tmp_path_factory.mktemp("capped")
    shutil.copytree(trained / "artifacts", folder / "artifacts")
    for name in ("lora", "checkpoints", "attempts"):
        shutil.rmtree(folder / "artifacts" / "runs" / "demo" / name)
    committed = lambda _, line: '"checkpoint committed"' in line  # noqa: E731
    assert finish_killed("train", folder, VARIABLES, committed)
    run = Run(open_store(str(folder / "artifacts")), "demo")
    assert spent_before(run) > 0  # what was killed has left its time
    earlier = Attempt(attempt="earlier", step=0, started=datetime(2026, 1, 1, tzinfo=UTC), seconds=36_000)
    run.store.put(f"runs/demo/attempts/{earlier.name}.json", earlier.to_bytes())
    end, told = outcome(folder, "train", **TEN_HOURS)
    assert end.code == ExitCode.DONE, end.events
    assert [event for event in end.events if event["event"] == "step"] == []  # its time was over before it began
    assert "ended by a limit after step" in told["capped"]
    assert told["hours"] > 10
    assert told["cost"] == pytest.approx(2 * told["hours"], abs=1e-3)
    assert told["artifact"].startswith("runs/demo/capped/step-")
    return folder


def test_the_capped_lora_says_that_it_is_one(capped: Path) -> None:
    store = open_store(str(capped / "artifacts"))
    found = lora.newest_capped(store, "demo")
    assert found is not None
    assert found.capped_at is not None
    assert 4 <= found.capped_at < 12
    assert found.recipe["capped_at"] == found.capped_at
    card = (capped / "artifacts" / found.path / "README.md").read_text()
    assert f"**Capped:** the training was ended after step {found.capped_at} of 12, when `TRAIN_MAX_HOURS=10`" in card
    status = json.loads((capped / "artifacts" / "runs" / "demo" / "status.json").read_text())
    assert (status["phase"], status["step"]) == ("capped", found.capped_at)
    assert not (capped / "artifacts" / "runs" / "demo" / "lora").exists()


def test_with_the_same_limit_the_run_is_done_at_once(capped: Path) -> None:
    end, told = outcome(capped, "train", **TEN_HOURS)
    assert end.code == ExitCode.DONE
    assert end.last("already capped")["limit"] == "TRAIN_MAX_HOURS=10"
    assert told["artifact"].startswith("runs/demo/capped/step-")


def test_evaluate_goes_on_with_it_unless_it_is_told_of_another(capped: Path, tmp_path: Path) -> None:
    shutil.copytree(capped / "artifacts", tmp_path / "artifacts")
    end, told = outcome(tmp_path, "evaluate")
    assert end.code == ExitCode.DONE, end.events
    report = json.loads((tmp_path / "artifacts" / told["artifact"] / "evaluation.json").read_text())
    assert report["lora"].startswith("runs/demo/capped/step-")


def test_a_higher_limit_goes_on_to_the_bits_of_a_run_that_had_none(capped: Path, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(capped / "artifacts", tmp_path / "artifacts")
    end, told = outcome(tmp_path, "train", TRAIN_MAX_HOURS="20")
    assert end.code == ExitCode.DONE, end.events
    assert told["artifact"] == "runs/demo/lora"
    assert "capped" not in told
    assert lora_bytes(tmp_path) == lora_bytes(trained)


def test_a_limit_that_leaves_no_time_for_a_step_is_a_wrong_setting(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "artifacts", tmp_path / "artifacts")
    for name in ("lora", "checkpoints"):
        shutil.rmtree(tmp_path / "artifacts" / "runs" / "demo" / name)
    end, told = outcome(tmp_path, "train", TRAIN_MAX_HOURS="0.000001")
    assert end.code == ExitCode.BAD_CONFIGURATION, end.events
    assert told["error"].startswith("TRAIN_MAX_HOURS=1e-06 is reached before the first step is done")
