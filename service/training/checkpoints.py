"""Checkpoints of a run: committed whole under a name of their own, found again, verified."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from service.artifacts import layout
from service.artifacts.fetching import fetch
from service.artifacts.kinds import checkpoint
from service.artifacts.publishing import list_artifacts
from service.artifacts.retention import Keep, carry_out, plan_retention
from service.artifacts.runs import Run
from service.exits import BadData, ServiceError
from service.settings.identity import check_identity
from service.settings.train import TrainSettings
from service.storage.interface import NotFound
from service.training.progress import Progress, best

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: where it is in the store, its local folder, and the step that it is of."""

    path: str
    folder: Path
    step: int


def commit(run: Run, folder: Path, step: int, settings: Mapping[str, Any]) -> str:
    """Publishes the checkpoint in `folder`; returns its path, which no other has: two writers never touch one file."""
    path = checkpoint.write(run.store, folder, run_id=run.run_id, step=step, recipe=settings)
    log.info("checkpoint committed", step=step, path=path)
    return path


def committer(
    run: Run,
    recipe: Mapping[str, Any],
    *,
    progress: Progress,
    settings: TrainSettings,
    on_commit: Callable[[int, str], None],
) -> Callable[[Path, int], None]:
    """What becomes of a saved folder, in the thread of the uploads: a checkpoint, for which older ones may go."""

    def commit_and_prune(folder: Path, step: int) -> None:
        on_commit(step, commit(run, folder, step, recipe))
        # The LoRA that is best so far is in every checkpoint; the one of its own step can also be trained on from.
        protected = {best(progress.measurements).step, settings.max_steps}
        try:
            plan = plan_retention(run, Keep(settings.keep_last, settings.keep_every), protected, datetime.now(UTC))
            carry_out(run.store, plan)
        except ServiceError as error:
            log.warning("old checkpoints not deleted; training goes on", reason=str(error))

    return commit_and_prune


def newest_on_all(run: Run, settings: Mapping[str, Any], work_dir: Path, accelerator: Accelerator) -> Checkpoint | None:
    """The newest valid checkpoint, the same for all processes: another attempt may commit one while they look."""
    found = newest_checkpoint(run, settings, work_dir) if accelerator.is_main_process else None
    chosen = [found.path if found else ""]
    broadcast_object_list(chosen)
    if accelerator.is_main_process or not chosen[0]:
        return found
    return Checkpoint(chosen[0], fetch(run.store, chosen[0], work_dir), checkpoint.step_of(chosen[0]))


def newest_checkpoint(run: Run, settings: Mapping[str, Any], work_dir: Path) -> Checkpoint | None:
    """The newest checkpoint, verified, or None when the run has none.

    A damaged one is named and passed over. Raises BadData when all are damaged: starting at 0 again would hide a loss;
    BadConfiguration when the checkpoint belongs to other settings.
    """
    checkpoints = layout.Checkpoints(run.run_id).path
    candidates = checkpoint.newest_first(list_artifacts(run.store, checkpoints))
    damaged = []
    for path in candidates:
        try:
            made_with = checkpoint.read(run.store, path).recipe
            folder = fetch(run.store, path, work_dir)
        except BadData as error:
            log.warning("checkpoint set aside", path=path, reason=str(error))
            damaged.append(path)
            continue
        except NotFound:
            continue  # deleted since the listing
        check_identity(TrainSettings, made_with, settings, path)
        return Checkpoint(path, folder, checkpoint.step_of(path))
    if damaged:
        raise BadData(f"none of the {len(damaged)} checkpoints of {checkpoints} is intact; see the warnings")
    return None
