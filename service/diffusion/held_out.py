"""Held-out loss: the same images, timesteps and noise for every model and at every time, so that losses compare."""

from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, PreTrainedTokenizerBase

from service.diffusion.images import CaptionedImage
from service.diffusion.latents import encode_images
from service.diffusion.objective import denoising_loss
from service.diffusion.prompts import encode_prompt, tokenize_prompt

# Early, middle and late noise of the usual thousand steps: each over-fits at its own pace.
TIMESTEPS = (100, 300, 500, 700)
ENCODED_AT_ONCE = 4


@dataclass(frozen=True)
class HeldOut:
    """latents: (N, C, H, W) scaled posterior means; prompt_states: (N, L, D); both float32."""

    latents: Tensor
    prompt_states: Tensor


def encode_held_out(
    images: list[CaptionedImage],
    vae: AutoencoderKL,
    tokenizer: PreTrainedTokenizerBase,
    text_encoder: CLIPTextModel,
    resolution: int,
) -> HeldOut:
    groups = [images[i : i + ENCODED_AT_ONCE] for i in range(0, len(images), ENCODED_AT_ONCE)]
    means = [encode_images(vae, group, resolution)[0] for group in groups]
    states = [encode_prompt(text_encoder, tokenize_prompt(tokenizer, [i.caption for i in group])) for group in groups]
    return HeldOut(torch.cat(means) * vae.config["scaling_factor"], torch.cat(states).float().cpu())


@torch.no_grad()
def held_out_losses(
    unet: UNet2DConditionModel, scheduler: DDPMScheduler, held_out: HeldOut, device: torch.device
) -> Tensor:
    """Loss of every (image, timestep). Returns (N, len(TIMESTEPS)) float32 on the CPU."""
    timesteps = torch.tensor(TIMESTEPS, device=device)
    rows = []
    for index, latents in enumerate(held_out.latents):
        noise = torch.stack([held_out_noise(index, timestep, tuple(latents.shape)) for timestep in TIMESTEPS])
        rows.append(
            denoising_loss(
                unet,
                scheduler,
                latents.expand_as(noise).to(device),
                noise.to(device),
                timesteps,
                held_out.prompt_states[index].expand(len(TIMESTEPS), -1, -1).to(device),
            ).cpu()
        )
    return torch.stack(rows)


def held_out_noise(image: int, timestep: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise that belongs to (image, timestep) alone. (C, H, W) float32."""
    seed = int(np.random.SeedSequence((image, timestep)).generate_state(1)[0])
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
