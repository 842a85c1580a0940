"""The chain as tests run it: as processes of their own, on the miniature, small or whole."""

import json
import multiprocessing
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers import free_port

# A few steps and pictures of everything: long enough to go wrong, short enough to be repeated.
SMALL = {
    "DATA_PREP_LIMIT": "24",
    "TRAIN_MAX_STEPS": "12",
    "TRAIN_CHECKPOINT_EVERY": "4",
    "TRAIN_BATCH_SIZE": "4",
    "TRAIN_SAMPLES": "1",
    "TRAIN_SAMPLE_STEPS": "2",
    "TRAIN_FRUITLESS_ATTEMPTS": "100",  # killed more often than it gains a checkpoint
    "INFER_PROMPTS": "8-bit illustration, a cat",
    "INFER_VARIATIONS": "1",
    "INFER_STEPS": "2",
    "EVALUATE_STEPS": "2",
    "EVALUATE_VARIATIONS": "2",
    "EVALUATE_MAX_PROMPTS": "2",
}
# A training on the samples, of which a test says how long it is and what happens to it.
TRAINING = {
    "RUN_ID": "demo",
    "MODEL_BASE": "miniature",
    "DATA_PREP_SOURCE": "folder",
    "DATA_PREP_FOLDER": "miniature",
    "DATA_PREP_LIMIT": "24",
    "TRAIN_PROFILE": "miniature",
}
SECONDS = 540


@dataclass(frozen=True)
class End:
    """How a process ended, and what it said."""

    code: int
    events: list[dict[str, Any]]

    def last(self, event: str) -> dict[str, Any]:
        return [e for e in self.events if e["event"] == event][-1]


# A process that has the libraries loaded, and forks one for each job: a start takes a moment rather than ten seconds.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [f"service.jobs.{job}" for job in ("data_prep", "train", "infer", "evaluate", "demo", "retrain")]
    + ["service.storage.s3.store"]
)


def warm_up() -> None:
    """Waits until the server has loaded everything, so that what is timed next is the job alone."""
    process = SERVER.Process(target=int)
    process.start()
    process.join(SECONDS)


class Running:
    """A job in a process of its own; what it says goes into a file."""

    def __init__(self, job: str, folder: Path, variables: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._said = folder / f"{job}-{uuid.uuid4().hex[:8]}.log"
        self._said.touch()
        environment = {
            **os.environ,
            "ARTIFACTS_URI": str(folder / "artifacts"),
            "WORK_DIR": str(folder / "work"),
            "LOG_LEVEL": "debug",  # each step is a moment
            **variables,
        }
        self.process = SERVER.Process(target=run_job, args=(job, folder, environment, self._said))
        self.process.start()

    def signal(self, number: int, *, everybody: bool) -> None:
        """Sends a signal to the job, or to all processes of its group, as Ctrl-C and the end of a pod do."""
        assert self.process.pid is not None
        with suppress(ProcessLookupError):
            (os.killpg if everybody else os.kill)(self.process.pid, number)

    def said(self) -> str:
        return self._said.read_text()

    def wait(self) -> "End":
        self.process.join(SECONDS)
        if self.process.is_alive():
            self.process.kill()
            raise AssertionError(f"still running after {SECONDS} s: {self.said()[-2000:]}")
        assert self.process.exitcode is not None
        return End(self.process.exitcode, events_of(self.said()))

    def wait_for(self, moment: Callable[[int, str], bool]) -> bool:
        """Until `moment(number, line)` is true of a logged event; False when the job ended before."""
        seen = 0
        while True:
            alive = self.process.is_alive()
            lines = [
                line for line in self.said().splitlines(keepends=True) if line.startswith("{") and line[-1] == "\n"
            ]
            for line in lines[seen:]:
                seen += 1
                if moment(seen, line):
                    return True
            if not alive:
                return False
            time.sleep(0.01)


def run_job(job: str, folder: Path, environment: Mapping[str, str], said: Path) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    os.dup2(os.open(said, os.O_WRONLY | os.O_APPEND), 2)
    if "OMP_NUM_THREADS" in environment:  # read when torch was loaded, which is past
        import torch

        torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    from service.__main__ import run

    sys.exit(run([job]))


def start(job: str, folder: Path, variables: Mapping[str, str]) -> Running:
    """Starts `sdlora JOB` with artifacts and scratch files in `folder` unless `variables` say otherwise."""
    return Running(job, folder, variables)


def start_group(count: int, folder: Path, variables: Mapping[str, str]) -> list[Running]:
    """`count` workers of one training, as a launcher of the user's own starts them; a single one needs none."""
    if count == 1:
        return [start("train", folder, variables)]
    group = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return [
        start("train", folder, {**variables, **group, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(count)
    ]


def finish(job: str, folder: Path, variables: Mapping[str, str]) -> End:
    return start(job, folder, variables).wait()


def finish_killed(job: str, folder: Path, variables: Mapping[str, str], moment: Callable[[int, str], bool]) -> bool:
    """Kills the process with SIGKILL once `moment(number, line)` is true of a logged event; False when it ended before."""
    running = start(job, folder, variables)
    reached = running.wait_for(moment)
    running.signal(signal.SIGKILL, everybody=True)
    running.process.join(SECONDS)
    return reached


def events_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def lora_bytes(folder: Path, run: str = "demo") -> bytes:
    return (folder / "artifacts" / "runs" / run / "lora" / "pytorch_lora_weights.safetensors").read_bytes()
