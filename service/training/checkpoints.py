"""Checkpoints of a run: committed whole under a name of their own, found again, verified."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from service.artifacts import layout
from service.artifacts.publishing import fetch, list_artifacts, publish, read_manifest
from service.artifacts.runs import Run
from service.exits import BadConfiguration, BadData
from service.settings.train import TrainSettings
from service.storage.interface import NotFound

log = structlog.get_logger(__name__)

# How often something is saved or shown, and on what it runs, does not change what is learned but in the order of sums:
# an operator may turn it between two attempts.
MAY_DIFFER = {
    "checkpoint_every", "log_every", "sample_every", "tracker", "gradient_accumulation_steps", "gradient_checkpointing",
    "compile", "cache_on_device", "processes", "nodes", "node_rank", "rendezvous", "peer_timeout", "keep_last", "keep_every",
    "failed_uploads", "fruitless_attempts", "grace_seconds", "stall_seconds", "status_seconds",
}  # fmt: skip


def identity(settings: TrainSettings, dataset: str) -> dict[str, Any]:
    """All that decides what the LoRA will be."""
    return {**{name: value for name, value in settings.recipe().items() if name not in MAY_DIFFER}, "dataset": dataset}


def check_identity(found: Mapping[str, Any], wanted: Mapping[str, Any], where: str) -> None:
    """Raises BadConfiguration, naming the settings, when `where` was made with others than those of now."""
    different = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
    if different:
        told = ", ".join(f"{name.upper()} ({found.get(name)} there, {wanted.get(name)} now)" for name in different)
        raise BadConfiguration(f"{where} was made with other settings: {told}; choose another RUN_ID or set them back")


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: where it is in the store, its local folder, and the step that it is of."""

    path: str
    folder: Path
    step: int


def commit(run: Run, folder: Path, step: int, settings: Mapping[str, Any]) -> str:
    """Publishes the checkpoint in `folder`; returns its path, which no other has: two writers never touch one file."""
    path = layout.Checkpoint(run.run_id, step, uuid.uuid4().hex[:12]).path
    publish(run.store, folder, kind="checkpoint", path=path, settings=settings)
    log.info("checkpoint committed", step=step, path=path)
    return path


def newest_valid(run: Run, settings: Mapping[str, Any], work_dir: Path) -> Path | None:
    """The verified folder of the newest checkpoint, or None when the run has none.

    A damaged one is named and passed over. Raises BadData when all are damaged: starting at 0 again would hide a loss;
    BadConfiguration when the checkpoint belongs to other settings.
    """
    found = newest(run, settings, work_dir)
    return found.folder if found else None


def agreed_newest(run: Run, settings: Mapping[str, Any], work_dir: Path, accelerator: Accelerator) -> Checkpoint | None:
    """The newest valid checkpoint, the same for all processes: another attempt may commit one while they look."""
    found = newest(run, settings, work_dir) if accelerator.is_main_process else None
    chosen = [found.path if found else ""]
    broadcast_object_list(chosen)
    if accelerator.is_main_process or not chosen[0]:
        return found
    return Checkpoint(chosen[0], fetch(run.store, chosen[0], work_dir), step_of(chosen[0]))


def newest(run: Run, settings: Mapping[str, Any], work_dir: Path) -> Checkpoint | None:
    checkpoints = layout.Checkpoints(run.run_id).path
    candidates = newest_first(list_artifacts(run.store, checkpoints))
    damaged = []
    for path in candidates:
        try:
            manifest = read_manifest(run.store, path)
            folder = fetch(run.store, path, work_dir)
        except BadData as error:
            log.warning("checkpoint set aside", path=path, reason=str(error))
            damaged.append(path)
            continue
        except NotFound:
            continue  # deleted since the listing
        check_identity(manifest.settings, settings, path)
        return Checkpoint(path, folder, step_of(path))
    if damaged:
        raise BadData(f"none of the {len(damaged)} checkpoints of {checkpoints} is intact; see the warnings")
    return None


def newest_first(paths: Sequence[str]) -> list[str]:
    """Orders paths of checkpoints by step, the newest first; anything else is left out."""
    steps = {path: place.step for path in paths if (place := layout.Checkpoint.parse(path))}
    return sorted(steps, key=lambda path: (-steps[path], path))


def step_of(path: str) -> int:
    place = layout.Checkpoint.parse(path)
    assert place is not None, path
    return place.step
