"""How wrong a denoiser is about noisy latents, the same for every family."""

from torch import Tensor, nn
from torch.nn import functional as F

from service.diffusion.family import Condition, NoiseScheduler


def denoising_loss(
    denoiser: nn.Module,
    noise_scheduler: NoiseScheduler,
    *,
    latents: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    condition: Condition,
) -> Tensor:
    """Mean squared error for each sample between what the denoiser predicts and its target. Returns (B,) float32.

    denoiser: a `Denoiser`, or what wraps it; latents, noise: (B, C, H, W) float32, latents in the denoiser's scale;
    timesteps: (B,) int64; condition: of B prompts.
    """
    noisy, target = noise_scheduler.noised(latents, noise, timesteps)
    predicted: Tensor = denoiser(noisy, timesteps, condition)
    return F.mse_loss(predicted.float(), target.float(), reduction="none").mean(dim=tuple(range(1, target.ndim)))
