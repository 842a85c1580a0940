"""What the U-Net is trained to predict, how wrong it is, and how much that counts."""

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn
from torch.nn import functional as F

from service.exits import BadConfiguration


def denoising_loss(
    denoiser: nn.Module,
    scheduler: DDPMScheduler,
    latents: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    condition: Tensor,
) -> Tensor:
    """Mean squared error for each sample (Ho et al. 2020, eq. 14; Salimans & Ho 2022 for v). Returns (B,) float32.

    latents, noise: (B, C, H, W) float32, latents scaled; timesteps: (B,) int64; condition: what the
    denoiser, a U-Net as a rule, takes for the prompts, (B, L, D) states.
    """
    # In float32: in bf16 the first timesteps would add no noise at all.
    noisy = scheduler.add_noise(latents.float(), noise.float(), timesteps)
    predicted = denoiser(noisy, timesteps, condition, return_dict=False)[0]
    target = target_of(scheduler, latents, noise, timesteps)
    return F.mse_loss(predicted.float(), target.float(), reduction="none").mean(dim=(1, 2, 3))


def target_of(scheduler: DDPMScheduler, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    kind = scheduler.config["prediction_type"]
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        return scheduler.get_velocity(latents, noise, timesteps)
    raise BadConfiguration(f"the base model predicts {kind!r}; a LoRA can be trained for epsilon and v_prediction")


def min_snr_weights(scheduler: DDPMScheduler, timesteps: Tensor, gamma: float) -> Tensor:
    """How much each sample's loss counts (Hang et al. 2023, eq. 5): min(SNR, γ)/SNR for ε, min(SNR, γ)/(SNR + 1) for v.

    timesteps: (B,) int64; returns (B,) float32.
    """
    alpha = scheduler.alphas_cumprod.to(timesteps.device)[timesteps].float()
    ratio = alpha / (1 - alpha)
    divisor = ratio + 1 if scheduler.config["prediction_type"] == "v_prediction" else ratio
    return torch.clamp(ratio, max=gamma) / divisor
