"""What happens between the first step and the last: checkpoints and their upload, pictures, and being told to stop."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from service import stopping
from service.artifacts import layout
from service.artifacts.publishing import exists, publish
from service.artifacts.retention import Keep, carry_out, plan_retention
from service.artifacts.runs import Run
from service.exits import ServiceError
from service.settings.train import TrainSettings
from service.storage.parallel import StopCheck
from service.training.checkpoints import commit
from service.training.encoded.loading import Prompts
from service.training.pictures import sample_grid
from service.training.processes.coordinator import Coordinator
from service.training.progress import best
from service.training.status import Status
from service.training.trainer import Trainer
from service.training.uploads import Uploads

log = structlog.get_logger(__name__)

SAMPLES_NAME = "samples.png"
SHORT = 0.75
"""Share of the grace time from which a stop is said to be short of it."""


@dataclass(frozen=True)
class OnTheWay:
    """The trainer's occasions. All processes have them alike; what is written, the first one writes."""

    run: Run
    folder: Path
    recipe: dict[str, Any]
    trainer: Trainer
    prompts: Prompts
    shown: Sequence[str]
    coordinator: Coordinator
    uploads: Uploads
    status: Status

    def checkpoint(self, step: int) -> None:
        self.status.enter("saving")
        local = self.folder / f"step-{step}"
        self.trainer.save(local)
        if self.trainer.accelerator.is_main_process:
            self.uploads.submit(local, step)
        else:
            shutil.rmtree(local, ignore_errors=True)
        self.status.enter("training")

    def sample(self, step: int) -> None:
        """Another attempt may have drawn them; on a GPU ours would differ in a pixel, and what is published stays."""

        def draw(between: StopCheck) -> None:
            path = layout.Samples(self.run.run_id, step).path
            if self.shown and not exists(self.run.store, path):
                local = self.folder / f"samples-{step}"
                self.draw(local, between)
                publish(self.run.store, local, kind="samples", path=path, settings=self.recipe)
                shutil.rmtree(local)

        self.status.enter("drawing")
        self.coordinator.run_on_main(draw)
        self.status.enter("training")

    def between(self) -> None:
        self.uploads.check()
        self.coordinator.check()

    def draw(self, folder: Path, between: StopCheck) -> None:
        """Pictures of the base and of the LoRA as the model has it now."""
        folder.mkdir(parents=True, exist_ok=True)
        trainer = self.trainer
        with trainer.accelerator.autocast():
            grid = sample_grid(
                trainer.unwrapped, trainer.noise_scheduler, self.prompts, self.shown, trainer.settings, between
            )
        grid.save(folder / SAMPLES_NAME)

    def wait_for_uploads(self) -> None:
        """Until the newest checkpoint is committed; raises why it cannot be."""
        self.coordinator.wait_on_main(self.uploads.finish)
        if stopping.requested() and self.trainer.accelerator.is_main_process:
            tell_of_grace(stopping.seconds_since(), self.trainer.settings.grace_seconds, self.trainer.progress.step)


def tell_of_grace(seconds: float, grace: int, step: int) -> None:
    """How much of the grace time was needed from being told to stop until the checkpoint was committed."""
    facts = {"seconds": round(seconds, 1), "grace_seconds": grace, "step": step}
    if seconds > SHORT * grace:
        log.warning("the grace time is short, raise terminationGracePeriodSeconds and TRAIN_GRACE_SECONDS", **facts)
    else:
        log.info("stopped in time", **facts)


def committing(
    run: Run, recipe: Mapping[str, Any], trainer: Trainer, status: Status, settings: TrainSettings
) -> Callable[[Path, int], None]:
    """What becomes of a snapshot, in the thread of the uploads: a checkpoint, and older ones may go."""

    def commit_snapshot(folder: Path, step: int) -> None:
        status.committed(step, commit(run, folder, step, recipe))
        # The LoRA that is best so far is in every checkpoint; the one of its own step can also be trained on from.
        protected = {best(trainer.progress.measurements).step, settings.max_steps}
        try:
            plan = plan_retention(run, Keep(settings.keep_last, settings.keep_every), protected, datetime.now(UTC))
            carry_out(run.store, plan)
        except ServiceError as error:
            log.warning("old checkpoints not deleted; training goes on", reason=str(error))

    return commit_snapshot
