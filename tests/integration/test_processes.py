"""Training on several processes, over gloo: the same LoRA, the same resume, and an exit code that tells what happened."""

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from service.exits import ExitCode
from tests.integration.chain import TRAINING, End, Running, finish, finish_killed, lora_bytes, start, start_group
from tests.integration.trained_runs import distance, with_dataset

STEPS = 50
VARIABLES = TRAINING | {
    "TRAIN_MAX_STEPS": str(STEPS),
    "TRAIN_CHECKPOINT_EVERY": "5",
    "TRAIN_VALIDATE_EVERY": "25",
    "TRAIN_BATCH_SIZE": "4",
    "TRAIN_EMA_DECAY": "0.9",
    "TRAIN_SAMPLES": "0",
    "TRAIN_PEER_TIMEOUT": "60",
    "TRAIN_FRUITLESS_ATTEMPTS": "100",
    "TRAIN_LOG_EVERY": "1",
    "OMP_NUM_THREADS": "1",
}
KILLS = 10


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a data set."""
    folder = tmp_path_factory.mktemp("dataset")
    assert finish("data-prep", folder, VARIABLES).code == ExitCode.DONE
    return folder


@pytest.fixture(scope="module")
def alone(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of it, undisturbed."""
    folder = with_dataset(tmp_path_factory.mktemp("alone"), prepared)
    assert finish("train", folder, VARIABLES).code == ExitCode.DONE
    return folder


def train(count: int, folder: Path, variables: Mapping[str, str] = VARIABLES) -> End:
    """What the first of `count` workers said, after all of them have ended well."""
    ends = [running.wait() for running in start_group(count, folder, variables)]
    assert [end.code for end in ends] == [ExitCode.DONE] * count, ends
    return ends[0]


def rates(folder: Path) -> list[float]:
    """The learning rate at each step."""
    lines = (folder / "artifacts" / "runs" / "demo" / "lora" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["learning_rate"] for line in lines if "learning_rate" in line]


def test_killed_at_ten_random_steps_and_resumed_the_lora_has_the_same_bits(
    prepared: Path, alone: Path, tmp_path: Path
) -> None:
    dice = random.Random(4)
    folder, kills, runs = with_dataset(tmp_path / "0", prepared), 0, 1
    while kills < KILLS:
        # Steps are logged each; the kill falls somewhere after the one that is waited for.
        step = dice.randrange(1, STEPS)

        def moment(_: int, line: str, step: int = step) -> bool:
            reached = '"what": "training"' in line or '"event": "step"' in line
            if reached and any(f'"{name}": {n},' in line for name in ("step", "done") for n in range(step, STEPS + 1)):
                time.sleep(dice.uniform(0, 0.1))
                return True
            return False

        if finish_killed("train", folder, VARIABLES, moment):
            kills += 1
        else:
            assert lora_bytes(folder) == lora_bytes(alone)
            folder, runs = with_dataset(tmp_path / str(runs), prepared), runs + 1
    assert finish("train", folder, VARIABLES).code == ExitCode.DONE
    assert lora_bytes(folder) == lora_bytes(alone)


def test_two_and_four_processes_train_the_lora_that_one_does(prepared: Path, alone: Path, tmp_path: Path) -> None:
    for count in (2, 4):
        folder = with_dataset(tmp_path / str(count), prepared)
        train(count, folder)
        assert distance(folder, alone) <= 1e-4
        assert rates(folder) == rates(alone)
        assert len(rates(alone)) == STEPS


def test_two_processes_that_are_killed_are_resumed_by_one(prepared: Path, alone: Path, tmp_path: Path) -> None:
    folder = with_dataset(tmp_path, prepared)
    group = start_group(2, folder, VARIABLES)
    assert group[0].wait_for(lambda _, line: "checkpoint committed" in line and int(json.loads(line)["step"]) >= 20)
    for running in group:
        running.process.kill()
        running.process.join(60)
    end = finish("train", folder, VARIABLES)
    assert end.code == ExitCode.DONE
    assert end.last("resumed")["step"] >= 20
    assert distance(folder, alone) <= 1e-4


def test_the_command_starts_its_own_workers_and_passes_their_exit_code_on(prepared: Path, tmp_path: Path) -> None:
    folder = with_dataset(tmp_path, prepared)
    few = VARIABLES | {"TRAIN_MAX_STEPS": "10", "TRAIN_PROCESSES": "2"}
    end = finish("train", folder, few)
    assert end.code == ExitCode.DONE
    assert end.last("LoRA published")["rank"] == 0
    assert all("rank" in e or e["event"] == "workers started" for e in end.events)

    wild = few | {"RUN_ID": "wild", "TRAIN_LEARNING_RATE": "1e30", "TRAIN_LR_SCHEDULER": "constant"}
    end = finish("train", folder, wild | {"TRAIN_DATASET": dataset_of(folder)})
    assert end.code == ExitCode.DIVERGED
    assert "not finite" in next(e for e in end.events if e["event"] == "failed" and "rank" in e)["error"]


def dataset_of(folder: Path) -> str:
    return str(json.loads((folder / "artifacts" / "runs" / "demo" / "dataset.json").read_text())["dataset"])


@pytest.mark.parametrize("victim", [0, 1])
def test_a_worker_that_is_killed_is_a_lost_peer_whoever_of_them_ends_first(
    victim: int, prepared: Path, tmp_path: Path
) -> None:
    folder = with_dataset(tmp_path, prepared)
    running = start("train", folder, VARIABLES | {"TRAIN_PROCESSES": "2", "TRAIN_MAX_STEPS": "5000"})
    assert running.wait_for(lambda _, line: "checkpoint committed" in line)
    os.kill(workers_of(running)[victim], signal.SIGKILL)
    end = running.wait()
    assert end.code == ExitCode.PEER_LOST, end.events
    assert "killed by signal 9" in end.last("failed")["error"]
    # What the one that is left said of it, if it had the time.
    assert all(e["exit_code"] == ExitCode.PEER_LOST for e in end.events if e["event"] == "failed"), end.events


def test_when_a_worker_hangs_the_others_say_where_they_wait_for_it_and_the_training_ends_as_stalled(
    prepared: Path, tmp_path: Path
) -> None:
    folder = with_dataset(tmp_path, prepared)
    outcome = tmp_path / "outcome"
    patience = {"TRAIN_STALL_SECONDS": "20", "TRAIN_PEER_TIMEOUT": "300", "OUTCOME_FILE": str(outcome)}
    running = start("train", folder, VARIABLES | patience | {"TRAIN_PROCESSES": "2", "TRAIN_MAX_STEPS": "5000"})
    assert running.wait_for(lambda _, line: "checkpoint committed" in line)
    os.kill(workers_of(running)[1], signal.SIGSTOP)
    end = running.wait()
    assert end.code == ExitCode.STALLED, end.events
    assert "TRAIN_STALL_SECONDS=20" in next(e for e in end.events if e["event"] == "failed")["error"]
    assert "trainer.py" in running.said()
    assert json.loads(outcome.read_text())["exit_name"] == "STALLED"


def workers_of(running: Running) -> list[int]:
    """Process ids of the workers of a launcher, by rank."""
    found = subprocess.run(
        ["pgrep", "-P", str(running.process.pid), "-f", "spawn_main"], capture_output=True, text=True, check=True
    )
    return sorted(int(pid) for pid in found.stdout.split())
