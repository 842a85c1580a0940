"""Checkpoints of a run: committed whole under a name of their own, found again, verified."""

import re
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from service.artifacts.publishing import fetch, list_artifacts, publish, read_manifest
from service.artifacts.runs import Run
from service.exits import BadConfiguration, BadData
from service.settings.train import TrainSettings

log = structlog.get_logger(__name__)

# How often something is saved or shown, and on what it runs, does not change what is learned but in the order of sums:
# an operator may turn it between two attempts.
MAY_DIFFER = {
    "checkpoint_every", "log_every", "sample_every", "tracker", "gradient_accumulation_steps", "gradient_checkpointing",
    "compile", "cache_on_device", "processes", "nodes", "node_rank", "rendezvous", "peer_timeout",
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


def commit(run: Run, folder: Path, step: int, settings: Mapping[str, Any]) -> None:
    """Publishes the checkpoint in `folder`. Its path is the attempt's own, so two writers never touch one file."""
    path = run.path(f"checkpoints/step-{step:08d}/{uuid.uuid4().hex[:12]}")
    publish(run.store, folder, kind="checkpoint", path=path, settings=settings)
    log.info("checkpoint committed", step=step, path=path)


def newest_valid(run: Run, settings: Mapping[str, Any], work_dir: Path) -> Path | None:
    """The verified folder of the newest checkpoint, or None when the run has none.

    A damaged one is named and passed over. Raises BadData when all are damaged: starting at 0 again would hide a loss;
    BadConfiguration when the checkpoint belongs to other settings.
    """
    candidates = newest_first(list_artifacts(run.store, run.path("checkpoints")))
    for path in candidates:
        try:
            manifest = read_manifest(run.store, path)
            folder = fetch(run.store, path, work_dir)
        except BadData as error:
            log.warning("checkpoint set aside", path=path, reason=str(error))
            continue
        check_identity(manifest.settings, settings, path)
        return folder
    if candidates:
        raise BadData(
            f"none of the {len(candidates)} checkpoints of {run.path('checkpoints')} is intact; see the warnings"
        )
    return None


def newest_first(paths: Sequence[str]) -> list[str]:
    """Orders paths …/step-00000500/<attempt> by step, the newest first; anything else is left out."""
    steps = {path: int(match[1]) for path in paths if (match := re.search(r"/step-(\d+)/[^/]+$", path))}
    return sorted(steps, key=lambda path: (-steps[path], path))
