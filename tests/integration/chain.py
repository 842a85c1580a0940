"""The chain as tests run it: as processes of their own, on the miniature, small or whole."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# A few steps and pictures of everything: long enough to go wrong, short enough to be repeated.
SMALL = {
    "DATA_PREP_LIMIT": "24",
    "TRAIN_MAX_STEPS": "12",
    "TRAIN_CHECKPOINT_EVERY": "4",
    "TRAIN_BATCH_SIZE": "4",
    "TRAIN_SAMPLES": "1",
    "TRAIN_SAMPLE_STEPS": "2",
    "INFER_PROMPTS": "8-bit illustration, a cat",
    "INFER_VARIATIONS": "1",
    "INFER_STEPS": "2",
    "EVALUATE_STEPS": "2",
    "EVALUATE_VARIATIONS": "2",
    "EVALUATE_MAX_PROMPTS": "2",
}
SECONDS = 540


@dataclass(frozen=True)
class End:
    """How a process ended, and what it said."""

    code: int
    events: list[dict[str, Any]]

    def last(self, event: str) -> dict[str, Any]:
        return [e for e in self.events if e["event"] == event][-1]


def start(job: str, folder: Path, variables: Mapping[str, str]) -> subprocess.Popen[str]:
    """Starts `sdlora JOB` with artifacts and scratch files in `folder` unless `variables` say otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "ARTIFACTS_URI": str(folder / "artifacts"),
        "WORK_DIR": str(folder / "work"),
        **variables,
    }
    return subprocess.Popen(
        [sys.executable, "-m", "service", job], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
    )


def finish(job: str, folder: Path, variables: Mapping[str, str]) -> End:
    with start(job, folder, variables) as process:
        _, errors = process.communicate(timeout=SECONDS)
    return End(process.returncode, events_of(errors))


def finish_killed(job: str, folder: Path, variables: Mapping[str, str], moment: Callable[[int, str], bool]) -> bool:
    """Kills the process with SIGKILL once `moment(number, line)` is true of a logged event; False when it ended before."""
    with start(job, folder, variables) as process:
        assert process.stderr is not None
        events = (line for line in process.stderr if line.startswith("{"))
        reached = any(moment(number, line) for number, line in enumerate(events, start=1))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=SECONDS)
    return reached


def events_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def lora_bytes(folder: Path, run: str = "demo") -> bytes:
    return (folder / "artifacts" / "runs" / run / "lora" / "pytorch_lora_weights.safetensors").read_bytes()
