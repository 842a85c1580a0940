"""The training loop: the LoRA on encoded images, through Accelerate."""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import structlog
import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from service.diffusion.family import Denoiser, NoiseScheduler
from service.diffusion.held_out import HeldOut, held_out_losses
from service.diffusion.lora import keep_autocast_in_charge, load_lora_state, lora_parameters, lora_state
from service.diffusion.objective import denoising_loss
from service.exits import BadConfiguration, Diverged, Stopped
from service.logs import progress_bar
from service.settings.train import TrainSettings
from service.training.encoded.samples import EncodedDataset
from service.training.optimizers import new_optimizer, new_schedule
from service.training.progress import Measurement, Point, Progress, best, out_of_patience, ratios
from service.training.randomness import draw, global_batch

log = structlog.get_logger(__name__)

LORA_FILE = "lora.safetensors"
BEST_FILE = "best.safetensors"

Recent = tuple[int, Tensor, Tensor]
"""A step, the losses of its samples and the norm of its gradient, still on the device."""


class Occasions(Protocol):
    """What the job does on the way."""

    def checkpoint(self, step: int) -> None:
        """A checkpoint is due."""

    def sample(self, step: int) -> None:
        """Pictures are due; the LoRA in the model is the one to show."""

    def between(self) -> None:
        """A step, or a part of a measurement, is done. Raises Stopped, in all processes, to end the training here."""


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
        parts = accelerator.num_processes * settings.gradient_accumulation_steps
        if settings.batch_size % parts:
            raise BadConfiguration(
                f"TRAIN_BATCH_SIZE={settings.batch_size} cannot be shared equally by {accelerator.num_processes} processes"
                f" × TRAIN_GRADIENT_ACCUMULATION_STEPS={settings.gradient_accumulation_steps}"
            )
        self.accelerator = accelerator
        self.unwrapped = denoiser
        self.noise_scheduler = noise_scheduler
        self.samples = samples
        self.held_out = held_out
        self.settings = settings
        self.progress = Progress()
        self.saved = 0  # the step of the newest checkpoint
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
        kept = [self.progress, self.schedule]
        self.average = EMAModel(self.parameters, decay=settings.ema_decay, foreach=True) if settings.ema_decay else None
        accelerator.register_for_checkpointing(*kept, *([self.average] if self.average else []))
        accelerator.register_save_state_pre_hook(self._save_lora)
        accelerator.register_load_state_pre_hook(self._load_lora)

    def fit(self, occasions: Occasions) -> Progress:
        """Trains to the last step, or until patience is at its end; a checkpoint comes last.

        Raises Stopped, after a checkpoint of all that was done, when it is to end; Diverged, naming the images, at a loss
        that is not finite.
        """
        recent: list[Recent] = []
        try:
            self.catch_up(occasions)
            self.train(occasions, recent)
        except Stopped:
            if recent:
                self.record(recent)
            self.save_unless_saved(occasions)
            raise
        return self.progress

    def catch_up(self, occasions: Occasions) -> None:
        """What was due at the step that is reached, and did not come about: before the first step, or after a stop."""
        measured = [measurement.step for measurement in self.progress.measurements]
        if self.measurement_is_due() and self.progress.step not in measured:
            self.measure_held_out(occasions)
        self.sample_if_due(occasions)

    def train(self, occasions: Occasions, recent: list[Recent]) -> None:
        """The steps that are left. `recent` holds those since the last point of the curves."""
        settings = self.settings
        self.denoiser.train()
        for step in progress_bar(
            range(self.progress.step, settings.max_steps), "training", settings.max_steps - self.progress.step
        ):
            if out_of_patience(self.progress.measurements, settings.patience):
                break
            recent.append((step, *self.take_step(step)))
            self.progress.step = done = step + 1
            # A checkpoint closes a point of the curve: what came after the last point would be lost by a resume.
            save = done % settings.checkpoint_every == 0 or done == settings.max_steps
            if self.measurement_is_due() or save or done % settings.log_every == 0:
                self.record(recent)
                recent.clear()
            if self.measurement_is_due():
                self.measure_held_out(occasions)
            if save or out_of_patience(self.progress.measurements, settings.patience):
                self.save_unless_saved(occasions)
            self.sample_if_due(occasions)
            occasions.between()

    def measurement_is_due(self) -> bool:
        return self.progress.step % self.settings.validate_every == 0 or self.progress.step == self.settings.max_steps

    def sample_if_due(self, occasions: Occasions) -> None:
        step, every = self.progress.step, self.settings.sample_every
        if step and every and step % every == 0:
            with self.averaged():
                occasions.sample(step)

    def save_unless_saved(self, occasions: Occasions) -> None:
        if self.saved < self.progress.step:
            occasions.checkpoint(self.progress.step)
            self.saved = self.progress.step

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
                part = self.losses_of(step, mine[start : start + size])
                accelerator.backward(part.sum() / len(mine))
            losses.append(part.detach())
        # Accelerate's own clipping first looks for sharded gradients, which a LoRA has none of, for half a millisecond.
        accelerator.unscale_gradients()
        norm = nn.utils.clip_grad_norm_(self.parameters, settings.max_grad_norm)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            self.average.step(self.parameters)
        return torch.cat(losses), norm

    def losses_of(self, step: int, positions: range) -> Tensor:
        """(B,) weighted losses of the samples at these positions of the global batch of `step`."""
        settings, device = self.settings, self.accelerator.device
        batch = global_batch(settings.seed, step, settings.batch_size, self.samples.buckets)
        indices = [batch[position] for position in positions]
        draws = [
            draw(
                settings.seed,
                step,
                position,
                self.samples.shapes[indices[0]],
                self.noise_scheduler.config["num_train_timesteps"],
                settings.random_flip,
                settings.caption_dropout,
                settings.crops,
            )
            for position in positions
        ]
        timesteps = torch.tensor([d.timestep for d in draws], device=device)
        with self.accelerator.autocast():
            losses = denoising_loss(
                self.denoiser,
                self.noise_scheduler,
                self.samples.latents(indices, draws, device),
                torch.stack([d.noise + settings.noise_offset * d.channel_noise for d in draws]).to(device),
                timesteps,
                self.samples.conditions(indices, draws, device),
            )
        if settings.min_snr_gamma is not None:
            losses = losses * self.noise_scheduler.min_snr_weights(timesteps, settings.min_snr_gamma)
        return losses

    def record(self, recent: list[Recent]) -> None:
        """Closes a point of the curves. Here alone the device is asked for numbers."""
        losses, norms = torch.stack([losses for _, losses, _ in recent]), torch.stack([norm for *_, norm in recent])
        self.assert_finite(recent, losses, norms)
        means = self.accelerator.reduce(torch.stack([losses.mean(), norms.mean()]), "mean").tolist()
        point = Point(self.progress.step, means[0], means[1], float(self.schedule.get_last_lr()[0]))
        self.progress.points.append(point)
        self.accelerator.log({"loss": point.loss, "learning_rate": point.learning_rate}, step=point.step)
        log.debug("step", **point._asdict(), max_steps=self.settings.max_steps)

    def assert_finite(self, recent: list[Recent], losses: Tensor, norms: Tensor) -> None:
        finite = torch.isfinite(losses).all(dim=1)
        # fp16 scales the loss and skips steps that overflow: there a norm that is not finite is no divergence.
        if self.accelerator.mixed_precision != "fp16":
            finite &= torch.isfinite(norms)
        if bool(finite.all()):
            return
        row = int((~finite).nonzero()[0])
        step = recent[row][0]
        batch = global_batch(self.settings.seed, step, self.settings.batch_size, self.samples.buckets)
        mine = batch[self.accelerator.process_index :: self.accelerator.num_processes]
        # Where the losses are finite and the gradient is not, it may be any of them.
        bad = [index for index, loss in zip(mine, losses[row].tolist(), strict=True) if not math.isfinite(loss)] or mine
        names = ", ".join(dict.fromkeys(self.samples.names[index] for index in bad))
        raise Diverged(f"the loss is not finite at step {step + 1}, with the images {names}; try a lower learning rate")

    def measure_held_out(self, occasions: Occasions) -> None:
        """Each process measures its share of the images; all of them learn the same figures."""
        processes, device = self.accelerator.num_processes, self.accelerator.device
        mine = range(self.accelerator.process_index, len(self.held_out), processes)
        self.denoiser.eval()
        with self.averaged(), self.accelerator.autocast():
            losses = torch.zeros(())
            for place in range(math.ceil(len(self.held_out) / processes)):
                only = mine[place : place + 1]
                losses = losses + held_out_losses(self.unwrapped, self.noise_scheduler, self.held_out, device, only)
                occasions.between()
            # Zeros are in the others' places, so the sum is exact, whatever the number of processes.
            losses = self.accelerator.reduce(losses.to(device), "sum").cpu()
            self.progress.measurements.append(Measurement(self.progress.step, tuple(losses.mean(dim=0).tolist())))
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
        if self.settings.publish == "best":
            load_lora_state(self.best_state, self.unwrapped)
            return best(self.progress.measurements)
        if self.average is not None:
            self.average.copy_to(self.parameters)
        return self.progress.measurements[-1]

    def lora(self) -> dict[str, Tensor]:
        return lora_state(self.unwrapped)

    def save(self, folder: Path) -> None:
        self.accelerator.save_state(str(folder))

    def resume(self, folder: Path) -> None:
        self.accelerator.load_state(str(folder))
        if self.average is not None:
            self.average.to(self.accelerator.device)
        self.best_state = load_file(folder / BEST_FILE)
        self.saved = self.progress.step
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
