"""Noise and target of Stable Diffusion 1.x, by the scheduler that the recipe names."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from service.exits import BadConfiguration


class DDPMNoise:
    """A `NoiseScheduler` of a family, from diffusers' DDPMScheduler (Ho et al. 2020)."""

    def __init__(self, scheduler: DDPMScheduler) -> None:
        self.scheduler = scheduler

    @property
    def config(self) -> Mapping[str, Any]:
        """The scheduler's own."""
        return self.scheduler.config

    def noised(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """√ᾱ·latents + √(1 − ᾱ)·noise, and the noise (Ho et al. 2020, eq. 14) or the velocity (Salimans & Ho 2022).

        latents, noise: (B, C, H, W), latents scaled; timesteps: (B,) int64. Raises BadConfiguration for a base model
        that predicts something else.
        """
        # In float32: in bf16 the first timesteps would add no noise at all.
        noisy = self.scheduler.add_noise(latents.float(), noise.float(), timesteps)
        return noisy, self._target(latents, noise, timesteps)

    def min_snr_weights(self, timesteps: Tensor, gamma: float) -> Tensor:
        """Weight of each sample's loss (Hang et al. 2023, eq. 5): min(SNR, γ)/SNR for ε, min(SNR, γ)/(SNR + 1) for v.

        timesteps: (B,) int64; returns (B,) float32.
        """
        alpha = self.scheduler.alphas_cumprod.to(timesteps.device)[timesteps].float()
        ratio = alpha / (1 - alpha)
        divisor = ratio + 1 if self.config["prediction_type"] == "v_prediction" else ratio
        return torch.clamp(ratio, max=gamma) / divisor

    def _target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        kind = self.config["prediction_type"]
        if kind == "epsilon":
            return noise
        if kind == "v_prediction":
            return self.scheduler.get_velocity(latents, noise, timesteps)
        raise BadConfiguration(f"the base model predicts {kind!r}; a LoRA can be trained for epsilon and v_prediction")
