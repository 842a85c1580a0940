"""Held-out loss: the same images, timesteps and noise for every model and at every time, so that losses compare."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from service import stopping
from service.diffusion.family import Condition, NoiseScheduler, Parts, Pipeline
from service.diffusion.framing import square
from service.diffusion.images import CaptionedImage, load_pixels
from service.diffusion.objective import denoising_loss

# Early, middle and late noise of the usual thousand steps: each over-fits at its own pace.
TIMESTEPS = (100, 300, 500, 700)


@dataclass(frozen=True)
class HeldOut:
    """N images. latents: (N, C, H, W) float32, posterior means in the denoiser's scale; conditions: of N prompts."""

    latents: Tensor
    conditions: Condition

    def __len__(self) -> int:
        return len(self.latents)

    def repeated(self, index: int, times: int, device: torch.device) -> tuple[Tensor, Condition]:
        """Latents, (times, C, H, W), and condition of one image, as a batch of itself, on the device."""

        def repeat(tensor: Tensor) -> Tensor:
            return tensor[index].expand(times, *tensor.shape[1:]).to(device)

        return repeat(self.latents), {name: repeat(tensor) for name, tensor in self.conditions.items()}


def encode_held_out(images: Sequence[CaptionedImage], parts: Parts, resolution: int) -> HeldOut:
    """The images, in the square of `resolution` pixels, and their captions, one after the other.

    Raises BadData for an image that cannot be read, or whose latents are not finite.
    """
    means = [
        parts.encode_images(load_pixels(image, square(resolution))[None], [image.name]).mean[0] for image in images
    ]
    conditions = [parts.encode_prompts([image.caption]) for image in images]
    return HeldOut(torch.stack(means), {name: torch.cat([c[name] for c in conditions]) for name in conditions[0]})


def losses_of(pipeline: Pipeline, images: Sequence[CaptionedImage], resolution: int) -> list[float]:
    """Loss of each image, over all timesteps, as the pipeline is now: captions are encoded anew, a LoRA may sit there too.

    Raises Stopped, between two images, when the process was told to stop.
    """
    parts = pipeline.parts
    held_out = encode_held_out(images, parts, resolution)
    with pipeline.autocast():
        images_one_by_one = stopping.interruptible(range(len(held_out)))
        losses = held_out_losses(pipeline.denoiser, parts.noise_scheduler, held_out, pipeline.device, images_one_by_one)
    means: list[float] = losses.mean(dim=1).tolist()
    return means


@torch.no_grad()
def held_out_losses(
    denoiser: nn.Module,
    noise_scheduler: NoiseScheduler,
    held_out: HeldOut,
    device: torch.device,
    only: Iterable[int] | None = None,
) -> Tensor:
    """Loss of every (image, timestep). Returns (N, len(TIMESTEPS)) float32 on the CPU; zeros but for the images `only`."""
    timesteps = torch.tensor(TIMESTEPS, device=device)
    losses = torch.zeros(len(held_out), len(TIMESTEPS))
    for index in range(len(held_out)) if only is None else only:
        latents, condition = held_out.repeated(index, len(TIMESTEPS), device)
        noise = torch.stack([held_out_noise(index, timestep, tuple(latents.shape[1:])) for timestep in TIMESTEPS])
        losses[index] = denoising_loss(
            denoiser,
            noise_scheduler,
            latents=latents,
            noise=noise.to(device),
            timesteps=timesteps,
            condition=condition,
        ).cpu()
    return losses


def held_out_noise(image: int, timestep: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise that belongs to (image, timestep) alone. (C, H, W) float32."""
    seed = int(np.random.SeedSequence((image, timestep)).generate_state(1)[0])
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
