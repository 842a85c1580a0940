"""The training loop: the U-Net's LoRA on encoded images, through Accelerate."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.optimization import get_scheduler
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from service.diffusion.held_out import HeldOut, held_out_losses
from service.diffusion.lora import load_lora_state, lora_parameters, lora_state
from service.diffusion.objective import denoising_loss, min_snr_weights
from service.exits import BadConfiguration, Diverged
from service.logs import progress
from service.settings.train import TrainSettings
from service.training.cache import EncodedDataset
from service.training.randomness import draw, global_batch

log = structlog.get_logger(__name__)

LORA_FILE = "lora.safetensors"
LOSSES_PER_POINT = 10


@dataclass
class Progress:
    """How far the run is, and its curves: (step, mean loss since the last point), (step, held-out loss)."""

    step: int = 0
    loss: list[tuple[int, float]] = field(default_factory=list)
    held_out_loss: list[tuple[int, float]] = field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "loss": self.loss, "held_out_loss": self.held_out_loss}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.step = state["step"]
        self.loss = [(step, loss) for step, loss in state["loss"]]
        self.held_out_loss = [(step, loss) for step, loss in state["held_out_loss"]]


class Trainer:
    """Trains the LoRA in `unet` from a checkpoint, or from its start, to the last step."""

    def __init__(
        self,
        accelerator: Accelerator,
        unet: UNet2DConditionModel,
        scheduler: DDPMScheduler,
        samples: EncodedDataset,
        held_out: HeldOut,
        settings: TrainSettings,
    ) -> None:
        if settings.batch_size % accelerator.num_processes:
            raise BadConfiguration(
                f"TRAIN_BATCH_SIZE={settings.batch_size} cannot be shared equally by {accelerator.num_processes} processes"
            )
        self.accelerator = accelerator
        self.noise = scheduler
        self.samples = samples
        self.held_out = held_out
        self.settings = settings
        self.progress = Progress()
        self.parameters = lora_parameters(unet)
        optimizer = torch.optim.AdamW(self.parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
        # Not through `prepare`: that would advance the schedule once a process and step, and decay it too fast.
        self.schedule = get_scheduler(
            settings.lr_scheduler,
            optimizer,
            num_warmup_steps=settings.lr_warmup_steps,
            num_training_steps=settings.max_steps,
        )
        self.unet, self.optimizer = accelerator.prepare(unet, optimizer)
        accelerator.register_for_checkpointing(self.progress, self.schedule)
        accelerator.register_save_state_pre_hook(self._save_lora)
        accelerator.register_load_state_pre_hook(self._load_lora)

    def fit(self, on_checkpoint: Callable[[int], None]) -> Progress:
        """Trains to the last step; calls `on_checkpoint(step)` whenever a checkpoint is due, last of all at the end.

        Raises Diverged, naming the images, at a loss that is not finite.
        """
        first, last = self.progress.step, self.settings.max_steps
        if first == 0:
            self.measure_held_out()
        recent: list[Tensor] = []
        self.unet.train()
        for step in progress(range(first, last), "training", last - first):
            recent.append(self.take_step(step))
            self.progress.step = step + 1
            due = self.progress.step % self.settings.checkpoint_every == 0 or self.progress.step == last
            # A checkpoint closes a point of the curve: what came after the last point would be lost by a resume.
            if due or self.progress.step % LOSSES_PER_POINT == 0:
                self.record_loss(recent)
                recent.clear()
            if due:
                self.measure_held_out()
                on_checkpoint(self.progress.step)
        return self.progress

    def take_step(self, step: int) -> Tensor:
        """One optimizer step; returns this process's mean loss, still on the device."""
        settings, device = self.settings, self.accelerator.device
        indices = global_batch(settings.seed, step, settings.batch_size, len(self.samples))
        mine = range(self.accelerator.process_index, settings.batch_size, self.accelerator.num_processes)
        draws = [
            draw(
                settings.seed,
                step,
                position,
                self.samples.latent_shape,
                self.noise.config["num_train_timesteps"],
                settings.random_flip,
                settings.caption_dropout,
            )
            for position in mine
        ]
        indices = [indices[position] for position in mine]
        timesteps = torch.tensor([d.timestep for d in draws], device=device)
        with self.accelerator.autocast():
            losses = denoising_loss(
                self.unet,
                self.noise,
                self.samples.latents(indices, draws).to(device),
                torch.stack([d.noise + settings.noise_offset * d.channel_noise for d in draws]).to(device),
                timesteps,
                self.samples.states(indices, draws).to(device),
            )
        if settings.min_snr_gamma is not None:
            losses = losses * min_snr_weights(self.noise, timesteps, settings.min_snr_gamma)
        loss = losses.mean()
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(self.parameters, settings.max_grad_norm)
        self.assert_finite(norm, step, indices)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def assert_finite(self, norm: Tensor, step: int, indices: list[int]) -> None:
        # fp16 scales the loss and skips steps that overflow: there a norm that is not finite is no divergence.
        if self.accelerator.mixed_precision != "fp16" and not torch.isfinite(norm):
            names = ", ".join(self.samples.names[index] for index in indices)
            raise Diverged(
                f"the loss is not finite at step {step + 1}, with the images {names}; try a lower learning rate"
            )

    def record_loss(self, recent: list[Tensor]) -> None:
        loss = float(self.accelerator.reduce(torch.stack(recent).mean(), "mean"))
        self.progress.loss.append((self.progress.step, loss))
        rate = self.schedule.get_last_lr()[0]
        log.debug("step", step=self.progress.step, max_steps=self.settings.max_steps, loss=loss, lr=rate)

    def measure_held_out(self) -> None:
        self.unet.eval()
        with self.accelerator.autocast():
            losses = held_out_losses(self.unet, self.noise, self.held_out, self.accelerator.device)
        self.unet.train()
        self.progress.held_out_loss.append((self.progress.step, float(losses.mean())))
        log.info("held-out loss", step=self.progress.step, loss=round(float(losses.mean()), 5))

    def save(self, folder: Path) -> None:
        self.accelerator.save_state(str(folder))

    def resume(self, folder: Path) -> None:
        self.accelerator.load_state(str(folder))
        log.info("resumed", step=self.progress.step)

    def _save_lora(self, models: list[nn.Module], weights: list[Any], folder: str) -> None:
        """In place of the whole U-Net, which never changes, the checkpoint holds the adapter."""
        for model in models:
            save_file(lora_state(self.accelerator.unwrap_model(model)), Path(folder) / LORA_FILE)
        weights.clear()

    def _load_lora(self, models: list[nn.Module], folder: str) -> None:
        for model in models:
            load_lora_state(self.accelerator.unwrap_model(model), load_file(Path(folder) / LORA_FILE))
        models.clear()
