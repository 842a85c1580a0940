"""What a training leaves: its LoRA with model card, curves and pictures, published once it is proven to have an effect."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import torch

from service.artifacts import layout
from service.artifacts.kinds import checkpoint, dataset, lora
from service.artifacts.notes import Complete
from service.artifacts.publishing import exists, list_artifacts
from service.artifacts.runs import Run
from service.diffusion.images import CaptionedImage
from service.diffusion.lora import assert_effect
from service.exits import BadConfiguration
from service.settings.identity import check_identity
from service.settings.train import TrainSettings
from service.stopping import StopCheck
from service.training.callbacks import SamplePictures
from service.training.curves import draw_curves
from service.training.header import header_facts
from service.training.model_card import write_card
from service.training.progress import Measurement, ratio_of
from service.training.trained import Trained
from service.training.trainer import Trainer

log = structlog.get_logger(__name__)


def is_complete(run: Run, recipe: dict[str, Any]) -> bool:
    """True when the run's LoRA exists. Raises BadConfiguration when it was made by another recipe."""
    if not exists(run.store, run.lora_path):
        return False
    check_identity(TrainSettings, lora.read(run.store, run.lora_path).recipe, recipe, run.lora_path)
    return True


def capped_now(run: Run, recipe: dict[str, Any]) -> lora.Lora | None:
    """The LoRA of a run that was ended by a limit, unless a checkpoint has come further. Refuses like `is_complete`."""
    capped = lora.newest_capped(run.store, run.run_id)
    if capped is None or capped.capped_at is None:
        return None
    check_identity(TrainSettings, capped.recipe, recipe, capped.path)
    checkpoints = checkpoint.newest_first(list_artifacts(run.store, layout.Checkpoints(run.run_id).path))
    further = checkpoints and checkpoint.step_of(checkpoints[0]) > capped.capped_at
    return None if further else capped


@dataclass(frozen=True)
class Result:
    """The LoRA that a trainer has come to, and what it was made from."""

    run: Run
    recipe: dict[str, Any]
    dataset_path: str
    images: Sequence[CaptionedImage]
    trainer: Trainer
    measurement: Measurement
    """Of the weights that are in the model now, which are those to be published."""
    limit: str | None = None
    """What ended the training before its last step, such as TRAIN_MAX_HOURS=2."""

    @property
    def _ratio(self) -> float:
        """Its held-out loss as a multiple of the base model's."""
        return ratio_of(self.measurement, self.trainer.progress.measurements[0])

    def publish(self, folder: Path, pictures: SamplePictures, stop_check: StopCheck) -> None:
        """Writes it into `folder` and publishes it. Raises BadData for a LoRA that has no effect."""
        trainer, run = self.trainer, self.run
        with trainer.accelerator.autocast():
            noisy, condition = trainer.held_out.repeated(0, 1, trainer.accelerator.device)
            assert_effect(trainer.unwrapped, noisy, torch.tensor([500], device=noisy.device), condition)
        self._write(folder, pictures, stop_check)
        step = trainer.progress.step
        capped_at = step if self.limit else None
        try:
            artifact = lora.write(
                run.store, folder, run_id=run.run_id, dataset=self.dataset_path, recipe=self.recipe, capped_at=capped_at
            )
        except BadConfiguration:
            # Another attempt may have been faster; it was disturbed elsewhere, so its curves have other points.
            if not is_complete(run, self.recipe):
                raise
            log.info("already complete", lora=run.lora_path)
            return
        facts: dict[str, Any] = {
            "lora": artifact.path,
            "steps": step,
            "of_step": self.measurement.step,
            "held_out_ratio": round(self._ratio, 4),
        }
        if self.limit:
            log.warning("LoRA published, capped", **facts, limit=self.limit, max_steps=trainer.settings.max_steps)
            return
        Complete(**facts, version=artifact.manifest.version).write(run.store, run.run_id)
        log.info("LoRA published", **facts)

    def _write(self, folder: Path, pictures: SamplePictures, stop_check: StopCheck) -> None:
        """The folder that is published: weights, model card, curves, pictures."""
        folder.mkdir()
        trainer, progress = self.trainer, self.trainer.progress
        prediction = trainer.noise_scheduler.config["prediction_type"]
        trained = self._trained()
        files = trainer.unwrapped.export(folder, trained.name, header_facts(trained, prediction))
        if files.elsewhere is None:
            log.warning("no file for other programs", reason=files.missing)
        lora.write_metrics(progress.lines(), folder)
        draw_curves(progress, folder / lora.CURVES)
        pictures.draw(trainer, folder, stop_check)
        write_card(
            folder / lora.CARD,
            trained,
            files,
            modules=sum("lora_A" in name for name in trainer.lora()),
            ratio=self._ratio,
            samples=pictures.shown,
        )

    def _trained(self) -> Trained:
        return Trained(
            name=self.run.run_id,
            recipe=self.recipe,
            captions=[image.caption for image in self.images],
            style=dataset.read(self.run.store, self.dataset_path).style,
            steps=self.trainer.progress.step,
            of_step=self.measurement.step,
            limit=self.limit,
        )
