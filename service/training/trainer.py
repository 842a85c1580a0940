"""The training loop: the LoRA on encoded images, through Accelerate."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import structlog
import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from service.diffusion.family import Denoiser, NoiseScheduler
from service.diffusion.held_out import HeldOut
from service.diffusion.lora import keep_autocast_in_charge, load_lora_state, lora_parameters, lora_state
from service.exits import Stopped
from service.logs import progress_bar
from service.settings.train import TrainSettings, check_batch_size
from service.training.encoded.samples import EncodedDataset
from service.training.measuring import measure_held_out
from service.training.optimizers import new_optimizer, new_schedule
from service.training.progress import Measurement, Point, Progress, best, out_of_patience, ratios
from service.training.steps import StepLoss, StepResult, naming_memory_settings

log = structlog.get_logger(__name__)

LORA_FILE = "lora.safetensors"
BEST_FILE = "best.safetensors"


class Callback:
    """What the loop calls, in all processes alike and in the same order; each method does nothing unless overridden.

    One that raises Stopped does so in all processes, and ends the training there.
    """

    def on_train_begin(self, trainer: "Trainer") -> None:
        """Before the first step of this attempt."""

    def on_prediction_step(self, trainer: "Trainer") -> None:
        """A held-out image was measured."""

    def on_step_end(self, trainer: "Trainer") -> None:
        """An optimizer step is done, and the held-out loss measured where that was due."""

    def on_train_end(self, trainer: "Trainer") -> None:
        """After the last step, or the one at which the training was stopped."""


class Trainer:
    """Trains the LoRA in `denoiser` from its start, or from a checkpoint, to the last step."""

    def __init__(
        self,
        accelerator: Accelerator,
        denoiser: Denoiser,
        noise_scheduler: NoiseScheduler,
        samples: EncodedDataset,
        held_out: HeldOut,
        settings: TrainSettings,
    ) -> None:
        check_batch_size(settings, accelerator.num_processes)
        self.accelerator = accelerator
        self.unwrapped = denoiser
        self.noise_scheduler = noise_scheduler
        self.held_out = held_out
        self.settings = settings
        self.progress = Progress()
        self.best_state: dict[str, Tensor] = {}
        self.parameters = lora_parameters(denoiser)
        if accelerator.mixed_precision != "no":
            keep_autocast_in_charge(denoiser)
        if settings.gradient_checkpointing:
            denoiser.enable_gradient_checkpointing()
        if settings.compile:
            denoiser.compile()
        optimizer = new_optimizer(self.parameters, settings, accelerator.device)
        self.schedule = new_schedule(optimizer, settings)
        self.denoiser, self.optimizer = accelerator.prepare(denoiser, optimizer)
        self._step_loss = StepLoss(accelerator, self.denoiser, noise_scheduler, samples, settings)
        self._open_point: list[StepResult] = []
        self._skipped: list[int] = []
        kept = [self.progress, self.schedule]
        self.average = EMAModel(self.parameters, decay=settings.ema_decay, foreach=True) if settings.ema_decay else None
        accelerator.register_for_checkpointing(*kept, *([self.average] if self.average else []))
        accelerator.register_save_state_pre_hook(self._save_lora)
        accelerator.register_load_state_pre_hook(self._load_lora)

    @property
    def finished(self) -> bool:
        """Whether the last step is done, or patience at its end."""
        enough = out_of_patience(self.progress.measurements, self.settings.patience)
        return enough or self.progress.step >= self.settings.max_steps

    def fit(self, callbacks: Sequence[Callback]) -> Progress:
        """Trains until it is finished.

        Raises Stopped when a callback did so; Diverged, naming the images, at a loss that is not finite.
        """
        try:
            for callback in callbacks:
                callback.on_train_begin(self)
            # What was due at the step that is reached may not have come about before a stop.
            self._measure_if_due(callbacks)
            self._train(callbacks)
        except Stopped:
            for callback in callbacks:
                callback.on_train_end(self)
            raise
        for callback in callbacks:
            callback.on_train_end(self)
        return self.progress

    def _train(self, callbacks: Sequence[Callback]) -> None:
        """The steps that are left."""
        self.denoiser.train()
        steps = range(self.progress.step, self.settings.max_steps)
        for step in progress_bar(steps, "training", len(steps), self._figures):
            if self.finished:
                break
            with naming_memory_settings(self.settings):
                self._open_point.append(StepResult(step, *self.take_step(step)))
            self.progress.step = step + 1
            if self._measurement_is_due() or self.progress.step % self.settings.log_every == 0:
                self._close_point()
            self._measure_if_due(callbacks)
            for callback in callbacks:
                callback.on_step_end(self)

    def _figures(self) -> dict[str, float]:
        """The newest figures that there are."""
        figures: dict[str, float] = {}
        if self.progress.points:
            figures |= {"loss": self.progress.points[-1].loss}
        if self.progress.measurements:
            figures |= {"held_out_ratio": ratios(self.progress.measurements)[-1]}
        return figures

    def take_step(self, step: int) -> tuple[Tensor, Tensor]:
        """One optimizer step; returns this process's loss of each sample and the gradient's norm, both on the device."""
        settings, accelerator = self.settings, self.accelerator
        mine = range(accelerator.process_index, settings.batch_size, accelerator.num_processes)
        size = len(mine) // settings.gradient_accumulation_steps
        losses: list[Tensor] = []
        for start in range(0, len(mine), size):
            last = start + size == len(mine)
            # Gradients are shared between processes once a step, with its last part.
            with nullcontext() if last else accelerator.no_sync(self.denoiser):
                part = self._step_loss(step, mine[start : start + size])
                accelerator.backward(part.sum() / len(mine))
            losses.append(part.detach())
        # Accelerate's own clipping first looks for sharded gradients, which a LoRA has none of, for half a millisecond.
        accelerator.unscale_gradients()
        norm = nn.utils.clip_grad_norm_(self.parameters, settings.max_grad_norm)
        self.optimizer.step()
        if self.optimizer.step_was_skipped:
            self._skipped.append(step + 1)
            # The schedule counts it all the same: its rates are those of the numbers of steps. Torch takes that for a mistake.
            warnings.filterwarnings("ignore", r"Detected call of `lr_scheduler\.step\(\)` before", UserWarning)
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            self.average.step(self.parameters)
        return torch.cat(losses), norm

    def _close_point(self) -> None:
        """Adds a point to the curves, of the steps since the last one. Here alone the device is asked for numbers."""
        if not self._open_point:
            return
        losses = torch.stack([result.losses for result in self._open_point])
        norms = torch.stack([result.gradient_norm for result in self._open_point])
        self._step_loss.assert_finite(self._open_point)
        means = self.accelerator.reduce(torch.stack([losses.mean(), norms.mean()]), "mean").tolist()
        self._open_point.clear()
        if self._skipped:
            log.warning("steps skipped, as fp16 overflowed; the scale of the loss is lowered", steps=self._skipped)
            self._skipped = []
        point = Point(self.progress.step, means[0], means[1], float(self.schedule.get_last_lr()[0]))
        self.progress.points.append(point)
        self.accelerator.log({"loss": point.loss, "learning_rate": point.learning_rate}, step=point.step)
        log.debug("step", **point._asdict(), max_steps=self.settings.max_steps)

    def _measurement_is_due(self) -> bool:
        return self.progress.step % self.settings.validate_every == 0 or self.progress.step == self.settings.max_steps

    def _measure_if_due(self, callbacks: Sequence[Callback]) -> None:
        if self._measurement_is_due():
            self._measure(callbacks)

    def _measure(self, callbacks: Sequence[Callback]) -> None:
        """Measures the held-out loss where it is not known yet, and keeps the LoRA that is the best so far."""

        def on_prediction_step() -> None:
            for callback in callbacks:
                callback.on_prediction_step(self)

        measured = [measurement.step for measurement in self.progress.measurements]
        if self.progress.step in measured:
            return
        self.denoiser.eval()
        with self.averaged():
            losses = measure_held_out(
                self.accelerator, self.unwrapped, self.noise_scheduler, self.held_out, on_prediction_step
            )
            self.progress.measurements.append(Measurement(self.progress.step, losses))
            if best(self.progress.measurements) is self.progress.measurements[-1]:
                self.best_state = {name: tensor.clone() for name, tensor in self.lora().items()}
        self.denoiser.train()
        last, ratio = self.progress.measurements[-1], ratios(self.progress.measurements)[-1]
        self.accelerator.log({"held_out_loss": last.loss, "held_out_ratio": ratio}, step=last.step)
        log.info("held-out loss", step=last.step, loss=round(last.loss, 5), ratio=round(ratio, 4))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The moving average in the model's place, where one is kept."""
        if self.average is None:
            yield
            return
        self.average.store(self.parameters)
        self.average.copy_to(self.parameters)
        try:
            yield
        finally:
            self.average.restore(self.parameters)

    def install_result(self) -> Measurement:
        """Leaves in the model the LoRA that is to be published; returns what was measured of it."""
        return self._install_best() if self.settings.publish == "best" else self._install_newest()

    def install_best_so_far(self, callbacks: Sequence[Callback]) -> Measurement:
        """The same for a training that was ended early: what it is at is measured too, of which no checkpoint knows.

        The best is no LoRA before the first step, however much worse all that came later is.
        """
        self._measure(callbacks)
        return self._install_best() if best(self.progress.measurements).step else self._install_newest()

    def _install_best(self) -> Measurement:
        load_lora_state(self.best_state, self.unwrapped)
        return best(self.progress.measurements)

    def _install_newest(self) -> Measurement:
        if self.average is not None:
            self.average.copy_to(self.parameters)
        return self.progress.measurements[-1]

    def lora(self) -> dict[str, Tensor]:
        return lora_state(self.unwrapped)

    def save(self, folder: Path) -> None:
        """A checkpoint of all that was done. It closes a point of the curves, which a resume would else lose."""
        self._close_point()
        self.accelerator.save_state(str(folder))

    def resume(self, folder: Path) -> None:
        """Goes on from a checkpoint."""
        self.accelerator.load_state(str(folder))
        if self.average is not None:
            self.average.to(self.accelerator.device)
        self.best_state = load_file(folder / BEST_FILE)
        log.info("resumed", step=self.progress.step)

    def _save_lora(self, models: list[nn.Module], weights: list[Any], folder: str) -> None:
        """In place of the whole U-Net, which never changes, the checkpoint holds the adapter, and the best one so far."""
        if models and self.accelerator.is_main_process:
            save_file(self.lora(), Path(folder) / LORA_FILE)
            save_file(self.best_state, Path(folder) / BEST_FILE)
        weights.clear()

    def _load_lora(self, models: list[nn.Module], folder: str) -> None:
        load_lora_state(load_file(Path(folder) / LORA_FILE), self.unwrapped)
        models.clear()
