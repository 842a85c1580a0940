"""The chain, disturbed: told to stop and killed at random moments, on one process and on two. Nothing is lost by it.

SDLORA_SOAK is the number of moments; `make soak` takes many.
"""

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from service.exits import ExitCode
from tests.integration.chain import End, Running, finish, lora_bytes, start, start_group
from tests.integration.trained_runs import with_dataset

MOMENTS = int(os.environ.get("SDLORA_SOAK", "6"))
ON_TWO = MOMENTS // 2 if MOMENTS > 10 else MOMENTS // 4
"""Of them, those on two processes, which take long to start."""
# The pod's first process alone, or all of them; Ctrl-C reaches all; a pod is killed as a whole.
DISTURBANCES = [(signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGINT, True), (signal.SIGKILL, True)]
GRACE = 600  # a machine that runs other tests too is slow
VARIABLES = {
    "RUN_ID": "demo",
    "MODEL_BASE": "miniature",
    "DATA_PREP_SOURCE": "folder",
    "DATA_PREP_FOLDER": "miniature",
    "DATA_PREP_LIMIT": "12",
    "TRAIN_PROFILE": "miniature",
    "TRAIN_MAX_STEPS": "12",
    "TRAIN_CHECKPOINT_EVERY": "4",
    "TRAIN_VALIDATE_EVERY": "6",
    "TRAIN_BATCH_SIZE": "4",
    "TRAIN_EMA_DECAY": "0.9",
    "TRAIN_LOG_EVERY": "1",
    "TRAIN_SAMPLES": "1",
    "TRAIN_SAMPLE_EVERY": "6",
    "TRAIN_SAMPLE_STEPS": "3",
    "TRAIN_PEER_TIMEOUT": "300",
    "TRAIN_STATUS_SECONDS": "0.2",
    "TRAIN_GRACE_SECONDS": str(GRACE),
    "TRAIN_FRUITLESS_ATTEMPTS": "1000",  # it is disturbed more often than any cluster would
    "OMP_NUM_THREADS": "1",
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """What one and two processes make of it when they are left alone."""
    folders = {1: tmp_path_factory.mktemp("one"), 2: tmp_path_factory.mktemp("two")}
    for processes, folder in folders.items():
        assert finish("data-prep", folder, VARIABLES).code == ExitCode.DONE
        ends = [running.wait() for running in start_group(processes, folder, VARIABLES)]
        assert [end.code for end in ends] == [ExitCode.DONE] * processes, ends
    return folders


@dataclass
class Life:
    """One run from its data set to its LoRA, however often it is disturbed on the way."""

    folder: Path
    processes: int
    attempts: list[int] = field(default_factory=list)
    """The step at which each attempt at training began."""

    @property
    def job(self) -> str:
        return "train" if (self.run / "dataset.json").exists() else "data-prep"

    @property
    def run(self) -> Path:
        return self.folder / "artifacts" / "runs" / "demo"

    @property
    def newest(self) -> int:
        """The newest committed step."""
        committed = self.run.glob("checkpoints/step-*/*/MANIFEST.json")
        return max((int(manifest.parts[-3].removeprefix("step-")) for manifest in committed), default=0)

    def start(self) -> Running:
        processes = {"TRAIN_PROCESSES": str(self.processes)} if self.processes > 1 else {}
        return start(self.job, self.folder, VARIABLES | processes)

    def check(self, end: End, newest: int) -> None:
        """No committed step is computed twice: an attempt begins at the newest that was committed, and goes on from it."""
        begun = [event["step"] for event in end.events if event["event"] == "attempt begins"]
        resumed = [event["step"] for event in end.events if event["event"] == "resumed"]
        steps = [event["step"] for event in end.events if event["event"] == "step"]
        assert begun in ([], [newest])
        assert resumed in ([], [newest])
        assert steps in ([], list(range(newest + 1, newest + 1 + len(steps))))
        self.attempts += begun


def test_stopped_and_killed_at_random_moments_the_chain_makes_the_same_lora_and_computes_no_committed_step_twice(
    undisturbed: dict[int, Path], tmp_path: Path
) -> None:
    dice, told, seconds = random.Random(MOMENTS), Counter[str](), [0.0]
    for processes, moments in ((1, MOMENTS - ON_TWO), (2, ON_TWO)):
        life = Life(tmp_path / f"{processes}-0", processes)
        while moments:
            newest, job = life.newest, life.job
            running = life.start()
            if reached(running, dice, job):
                number, everybody = dice.choice(DISTURBANCES)
                began = time.monotonic()
                running.signal(number, everybody=everybody)
                end = running.wait()
                moments -= 1
                told[f"{job} on {processes}, {number.name}: {end.code}"] += 1
                if job == "train" and number != signal.SIGKILL:
                    stopped_well(end)
                    seconds.append(time.monotonic() - began)
            else:
                end = running.wait()
                assert end.code == ExitCode.DONE, end.events
            if job == "train":
                life.check(end, newest)
            if (life.run / "COMPLETE.json").exists():
                assert lora_bytes(life.folder) == lora_bytes(undisturbed[processes])
                life = Life(tmp_path / f"{processes}-{moments}", processes)
        bring_to_its_end(life)
        assert lora_bytes(life.folder) == lora_bytes(undisturbed[processes])
    sys.stdout.write(f"{dict(told)}; the longest stop took {max(seconds):.1f} s\n")


def reached(running: Running, dice: random.Random, job: str) -> bool:
    """Waits for a random moment: some time after some event. False when the job ended before."""
    number = dice.randint(1, 45 if job == "train" else 8)
    if not running.wait_for(lambda seen, _: seen >= number):
        return False
    time.sleep(dice.uniform(0, 0.3))
    return running.process.is_alive()


def stopped_well(end: End) -> None:
    """Stopped with all saved, and in time; or it had come to its end already."""
    if end.code == ExitCode.DONE:
        assert end.last("LoRA published")
        return
    assert end.code == ExitCode.STOPPED, end.events
    assert "told to stop" in end.last("stopped")["reason"]
    assert [event for event in end.events if event["event"] == "failed"] == []
    assert not [event for event in end.events if "grace time is short" in event["event"]]


def bring_to_its_end(life: Life) -> None:
    while not (life.run / "COMPLETE.json").exists():
        newest, job = life.newest, life.job
        end = life.start().wait()
        assert end.code == ExitCode.DONE, end.events
        if job == "train":
            life.check(end, newest)


def test_when_one_of_two_processes_is_told_both_stop_at_the_same_step(
    undisturbed: dict[int, Path], tmp_path: Path
) -> None:
    life = Life(tmp_path, 2)
    with_dataset(tmp_path, undisturbed[2])
    group = start_group(2, tmp_path, VARIABLES | {"TRAIN_MAX_STEPS": "5000", "TRAIN_CHECKPOINT_EVERY": "5000"})
    assert group[0].wait_for(lambda _, line: '"event": "step"' in line)
    group[1].signal(signal.SIGTERM, everybody=False)
    ends = [running.wait() for running in group]
    assert [end.code for end in ends] == [ExitCode.STOPPED] * 2, ends
    [committed] = [event["step"] for event in ends[0].events if event["event"] == "checkpoint committed"]
    assert committed == life.newest == ends[0].last("step")["step"]
    status = json.loads((life.run / "status.json").read_text())
    assert (status["phase"], status["step"], status["lastCheckpoint"]["step"]) == ("stopped", committed, committed)


def test_stopped_while_it_encodes_images_it_keeps_what_it_has(undisturbed: dict[int, Path], tmp_path: Path) -> None:
    with_dataset(tmp_path, undisturbed[1])
    running = start("train", tmp_path, VARIABLES)
    assert running.wait_for(lambda _, line: '"encoding images"' in line)
    running.signal(signal.SIGTERM, everybody=False)
    end = running.wait()
    assert end.code == ExitCode.STOPPED, end.events
    assert end.last("published")["kind"] == "cache"
    whole, rest = end.last("progress")["total"], finish("train", tmp_path, VARIABLES)
    totals = [event["total"] for event in rest.events if event.get("what") == "encoding images"]
    assert totals == [] or totals[0] < whole
    assert lora_bytes(tmp_path) == lora_bytes(undisturbed[1])


def test_what_the_run_leaves_beside_its_lora(undisturbed: dict[int, Path]) -> None:
    run = undisturbed[1] / "artifacts" / "runs" / "demo"
    facts = {name: json.loads((run / f"{name}.json").read_text()) for name in ("config", "status", "COMPLETE")}
    assert facts["config"]["max_steps"] == 12
    assert (facts["status"]["phase"], facts["status"]["progressPercentage"]) == ("complete", 100.0)
    assert facts["status"]["estimatedRemainingSeconds"] == 0
    assert facts["COMPLETE"]["lora"] == "runs/demo/lora"
    [attempt] = [json.loads(note.read_text()) for note in (run / "attempts").iterdir()]
    assert (attempt["step"], attempt["attempt"]) == (0, facts["status"]["attempt"])
    assert Life(undisturbed[1], 1).newest == 12


def test_a_run_that_never_gets_on_is_no_longer_tried(undisturbed: dict[int, Path], tmp_path: Path) -> None:
    with_dataset(tmp_path, undisturbed[1])
    life, few = Life(tmp_path, 1), {"TRAIN_FRUITLESS_ATTEMPTS": "2"}
    for expected in (ExitCode.STOPPED, ExitCode.STOPPED, ExitCode.BUG):
        running = start("train", tmp_path, VARIABLES | few)
        if running.wait_for(lambda _, line: "attempt begins" in line):
            running.signal(signal.SIGTERM, everybody=False)
        end = running.wait()
        assert end.code == expected, end.events
    assert "the last 2 attempts of run 'demo' all began at step 0" in end.last("failed")["error"]
    assert life.newest == 0
