"""What a training does besides its steps: checkpoints, pictures on the way, and stopping when it is asked to."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from service import stopping
from service.artifacts import layout
from service.artifacts.kinds import samples
from service.artifacts.kinds.lora import SAMPLES
from service.artifacts.publishing import exists
from service.artifacts.runs import Run
from service.settings.train import TrainSettings
from service.stopping import StopCheck
from service.training.costs import Capped, Meter
from service.training.encoded.loading import Prompts
from service.training.pictures import sample_grid
from service.training.processes.coordinator import Coordinator
from service.training.status import StatusReporter
from service.training.trainer import Callback, Trainer
from service.training.uploads import Uploads

log = structlog.get_logger(__name__)

SHORT_GRACE = 0.75
"""Share of the grace time from which a stop is said to be short of it."""


class Checkpoints(Callback):
    """Saves the training when a checkpoint is due, at its last step, and where it stops.

    All processes save, the main one uploads. At the end it waits until the newest is committed, and raises why it cannot be.
    """

    def __init__(
        self, folder: Path, uploads: Uploads, coordinator: Coordinator, status: StatusReporter, settings: TrainSettings
    ) -> None:
        self._folder = folder
        self._uploads = uploads
        self._coordinator = coordinator
        self._status = status
        self._every = settings.checkpoint_every
        self._grace_seconds = settings.grace_seconds
        self._saved_step = 0

    def on_train_begin(self, trainer: Trainer) -> None:
        self._saved_step = trainer.progress.step

    def on_prediction_step(self, _: Trainer) -> None:
        self._uploads.check()

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.finished or trainer.progress.step % self._every == 0:
            self.save(trainer)
        self._uploads.check()

    def on_train_end(self, trainer: Trainer) -> None:
        if self._saved_step < trainer.progress.step:
            self.save(trainer)
        self._coordinator.wait_on_main(self._uploads.finish)
        if stopping.requested() and trainer.accelerator.is_main_process:
            report_grace(stopping.seconds_since(), self._grace_seconds, trainer.progress.step)

    def save(self, trainer: Trainer) -> None:
        step = trainer.progress.step
        folder = self._folder / f"step-{step}"
        with self._status.during("saving"):
            trainer.save(folder)
            if trainer.accelerator.is_main_process:
                self._uploads.submit(folder, step)
            else:
                shutil.rmtree(folder, ignore_errors=True)
        self._saved_step = step


def report_grace(seconds: float, grace: int, step: int) -> None:
    """Logs how much of the grace time was needed from the request to stop until the checkpoint was committed."""
    facts = {"seconds": round(seconds, 1), "grace_seconds": grace, "step": step}
    if seconds > SHORT_GRACE * grace:
        log.warning("the grace time is short, raise terminationGracePeriodSeconds and TRAIN_GRACE_SECONDS", **facts)
    else:
        log.info("stopped in time", **facts)


@dataclass(frozen=True)
class SamplePictures:
    """The pictures of some prompts, by the base model and by the LoRA as the model has it now."""

    shown: Sequence[str]
    prompts: Prompts

    def draw(self, trainer: Trainer, folder: Path, stop_check: StopCheck) -> None:
        """Writes samples.png into `folder`, when there is something to show."""
        if not self.shown:
            return
        folder.mkdir(parents=True, exist_ok=True)
        with trainer.accelerator.autocast():
            grid = sample_grid(
                trainer.unwrapped, trainer.noise_scheduler, self.prompts, self.shown, trainer.settings, stop_check
            )
        grid.save(folder / SAMPLES)


class Samples(Callback):
    """Publishes the sample pictures every so many steps; the main process draws them, the others wait."""

    def __init__(
        self,
        pictures: SamplePictures,
        *,
        run: Run,
        recipe: dict[str, Any],
        folder: Path,
        coordinator: Coordinator,
        status: StatusReporter,
    ) -> None:
        self._pictures = pictures
        self._run = run
        self._recipe = recipe
        self._folder = folder
        self._coordinator = coordinator
        self._status = status

    def on_train_begin(self, trainer: Trainer) -> None:
        self.on_step_end(trainer)  # what was due at this step may not have come about before a stop

    def on_step_end(self, trainer: Trainer) -> None:
        step, every = trainer.progress.step, trainer.settings.sample_every
        if step and every and step % every == 0:
            with self._status.during("drawing"), trainer.averaged():
                self._coordinator.run_on_main(lambda stop_check: self._publish(trainer, stop_check))

    def _publish(self, trainer: Trainer, stop_check: StopCheck) -> None:
        """Another attempt may have drawn them; on a GPU ours would differ in a pixel, and what is published stays."""
        step = trainer.progress.step
        path = layout.Samples(self._run.run_id, step).path
        if self._pictures.shown and not exists(self._run.store, path):
            folder = self._folder / f"samples-{step}"
            self._pictures.draw(trainer, folder, stop_check)
            samples.write(self._run.store, folder, run_id=self._run.run_id, step=step, recipe=self._recipe)
            shutil.rmtree(folder)


class Costs(Callback):
    """Tells what the training costs, and ends it in all processes when a limit is reached; the main process's clock counts."""

    def __init__(self, meter: Meter, coordinator: Coordinator, settings: TrainSettings) -> None:
        self._meter = meter
        self._coordinator = coordinator
        self._limited = settings.max_hours is not None or settings.max_cost is not None

    def on_train_begin(self, trainer: Trainer) -> None:
        self._end_at_limit(trainer)

    def on_step_end(self, trainer: Trainer) -> None:
        self._meter.step_done()
        step = trainer.progress.step
        if trainer.accelerator.is_main_process and (
            self._meter.just_warm or step % trainer.settings.validate_every == 0
        ):
            log.info("costs", step=step, **self._meter.facts(step))
        self._end_at_limit(trainer)

    def _end_at_limit(self, trainer: Trainer) -> None:
        """A training that is finished is none that was ended."""
        if not self._limited or trainer.finished:
            return
        reached = self._meter.limit_reached() if trainer.accelerator.is_main_process else None
        if self._coordinator.any_of_all(reached is not None):
            raise Capped(reached or "a limit of the main process")


class StopOnRequest(Callback):
    """Ends the training in all processes at the same place when any of them was asked to stop."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    def on_prediction_step(self, _: Trainer) -> None:
        self._coordinator.check()

    def on_step_end(self, _: Trainer) -> None:
        self._coordinator.check()
