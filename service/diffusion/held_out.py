"""Held-out loss: the same images, timesteps and noise for every model and at every time, so that losses compare."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler
from torch import Tensor, nn
from transformers import CLIPTextModel, PreTrainedTokenizerBase

from service.diffusion.framing import square
from service.diffusion.images import CaptionedImage, load_pixels
from service.diffusion.objective import denoising_loss
from service.diffusion.sd15.latents import encode_pixels
from service.diffusion.sd15.prompts import encode_prompt, tokenize_prompt

# Early, middle and late noise of the usual thousand steps: each over-fits at its own pace.
TIMESTEPS = (100, 300, 500, 700)


@dataclass(frozen=True)
class HeldOut:
    """latents: (N, C, H, W) float32, scaled posterior means; conditions: (N, L, D) float32 states, or (N, L) int64 tokens."""

    latents: Tensor
    conditions: Tensor

    def __len__(self) -> int:
        return len(self.latents)


def encode_held_out(
    images: Sequence[CaptionedImage],
    vae: AutoencoderKL,
    tokenizer: PreTrainedTokenizerBase,
    text_encoder: CLIPTextModel,
    resolution: int,
) -> HeldOut:
    means, states = [], []
    for image in images:
        means.append(encode_pixels(vae, load_pixels(image, square(resolution))[None], [image.name])[0])
        states.append(encode_prompt(text_encoder, tokenize_prompt(tokenizer, [image.caption])).float().cpu())
    return HeldOut(torch.cat(means), torch.cat(states))


@torch.no_grad()
def held_out_losses(
    denoiser: nn.Module,
    scheduler: DDPMScheduler,
    held_out: HeldOut,
    device: torch.device,
    only: Iterable[int] | None = None,
) -> Tensor:
    """Loss of every (image, timestep). Returns (N, len(TIMESTEPS)) float32 on the CPU; zeros but for the images `only`."""
    timesteps = torch.tensor(TIMESTEPS, device=device)
    losses = torch.zeros(len(held_out), len(TIMESTEPS))
    for index in range(len(held_out)) if only is None else only:
        latents, condition = held_out.latents[index], held_out.conditions[index]
        noise = torch.stack([held_out_noise(index, timestep, tuple(latents.shape)) for timestep in TIMESTEPS])
        losses[index] = denoising_loss(
            denoiser,
            scheduler,
            latents.expand_as(noise).to(device),
            noise.to(device),
            timesteps,
            condition.expand(len(TIMESTEPS), *condition.shape).to(device),
        ).cpu()
    return losses


def held_out_noise(image: int, timestep: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise that belongs to (image, timestep) alone. (C, H, W) float32."""
    seed = int(np.random.SeedSequence((image, timestep)).generate_state(1)[0])
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
