"""One step of the training: its samples, their losses, and whether they are finite."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from service.diffusion.family import NoiseScheduler
from service.diffusion.objective import denoising_loss
from service.exits import Diverged, OutOfDeviceMemory, out_of_memory
from service.settings.train import TrainSettings
from service.training.encoded.samples import EncodedDataset
from service.training.randomness import draw, global_batch


class StepResult(NamedTuple):
    """What this process found in a step, still on the device. losses: (B,), of its own samples; gradient_norm: ()."""

    step: int
    losses: Tensor
    gradient_norm: Tensor


@contextmanager
def naming_memory_settings(settings: TrainSettings) -> Iterator[None]:
    """A block that needs the memory of a step. Raises OutOfDeviceMemory with the settings that would need less of it.

    First those that change nothing of the LoRA but the order of sums: the run goes on with them from its checkpoint.
    """
    try:
        yield
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        found = f"a step of TRAIN_BATCH_SIZE={settings.batch_size} at TRAIN_RESOLUTION={settings.resolution}"
        parts = settings.gradient_accumulation_steps
        ways = [] if settings.gradient_checkpointing else ["TRAIN_GRADIENT_CHECKPOINTING=true"]
        ways += [f"TRAIN_GRADIENT_ACCUMULATION_STEPS={2 * parts}"] if settings.batch_size % (2 * parts) == 0 else []
        ways += [] if settings.cache_on_device == "never" else ["TRAIN_CACHE_ON_DEVICE=never"]
        goes_on = f"set {', '.join(ways)}, with which the same run goes on; or " if ways else ""
        raise OutOfDeviceMemory(
            f"{found} needs more memory than the device has: {goes_on}take a larger GPU, or a smaller batch or resolution "
            "under a new RUN_ID"
        ) from error


class StepLoss:
    """The losses of the samples of a step, with all that is random in them from the seed, the step and the position alone."""

    def __init__(
        self,
        accelerator: Accelerator,
        denoiser: nn.Module,
        noise_scheduler: NoiseScheduler,
        samples: EncodedDataset,
        settings: TrainSettings,
    ) -> None:
        self._accelerator = accelerator
        self._denoiser = denoiser
        self._noise_scheduler = noise_scheduler
        self._samples = samples
        self._settings = settings

    def __call__(self, step: int, positions: range) -> Tensor:
        """(B,) weighted losses of the samples at these positions of the global batch of `step`."""
        settings, samples, device = self._settings, self._samples, self._accelerator.device
        batch = self._indices(step)
        indices = [batch[position] for position in positions]
        draws = [
            draw(
                settings.seed,
                step,
                position,
                shape=samples.shapes[indices[0]],
                timesteps=self._noise_scheduler.config["num_train_timesteps"],
                flip=settings.random_flip,
                drop_caption=settings.caption_dropout,
                crops=settings.crops,
            )
            for position in positions
        ]
        timesteps = torch.tensor([d.timestep for d in draws], device=device)
        with self._accelerator.autocast():
            losses = denoising_loss(
                self._denoiser,
                self._noise_scheduler,
                latents=samples.latents(indices, draws, device),
                noise=torch.stack([d.noise + settings.noise_offset * d.channel_noise for d in draws]).to(device),
                timesteps=timesteps,
                condition=samples.conditions(indices, draws, device),
            )
        if settings.min_snr_gamma is not None:
            losses = losses * self._noise_scheduler.min_snr_weights(timesteps, settings.min_snr_gamma)
        return losses

    def assert_finite(self, results: Sequence[StepResult]) -> None:
        """Raises Diverged, naming the images of this process, at the first step whose loss or gradient is not finite."""
        losses = torch.stack([result.losses for result in results])
        finite = torch.isfinite(losses).all(dim=1)
        # A scaler skips steps that overflow: there a norm that is not finite is no divergence.
        if self._accelerator.scaler is None:
            finite &= torch.isfinite(torch.stack([result.gradient_norm for result in results]))
        if bool(finite.all()):
            return
        row = int((~finite).nonzero()[0])
        step = results[row].step
        mine = self._indices(step)[self._accelerator.process_index :: self._accelerator.num_processes]
        # Where the losses are finite and the gradient is not, it may be any of them.
        bad = [index for index, loss in zip(mine, losses[row].tolist(), strict=True) if not math.isfinite(loss)] or mine
        names = ", ".join(dict.fromkeys(self._samples.names[index] for index in bad))
        raise Diverged(f"the loss is not finite at step {step + 1}, with the images {names}; try a lower learning rate")

    def _indices(self, step: int) -> list[int]:
        """The images of a step, over all processes."""
        return global_batch(self._settings.seed, step, self._settings.batch_size, self._samples.buckets)
