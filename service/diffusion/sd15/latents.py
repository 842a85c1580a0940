"""Images → the autoencoder's posterior."""

from collections.abc import Sequence

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from service.diffusion.family import Posterior
from service.diffusion.models import loading, locate_model
from service.exits import BadData
from service.settings.models import DiffusionSettings


def load_vae(settings: DiffusionSettings) -> AutoencoderKL:
    """The autoencoder of MODEL_VAE, float32 on the CPU. Raises MissingInput, BadData or BadConfiguration."""
    files = locate_model(settings, "model_vae")
    with loading(files):
        return AutoencoderKL.from_pretrained(files.name, dtype=torch.float32, **files.options)


@torch.no_grad()
def encode_pixels(vae: AutoencoderKL, pixels: Tensor, names: Sequence[str]) -> Posterior:
    """Mean and standard deviation of the posterior, both (B, C, H/f, W/f) float32 on the CPU, scaled for the U-Net.

    pixels: (B, 3, H, W) in [-1, 1]; names: of the B images, for the message. Raises BadData, naming the image, when a
    latent is not finite.
    """
    posterior = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist
    scale = vae.config["scaling_factor"]
    mean, deviation = (posterior.mean.float() * scale).cpu(), (posterior.std.float() * scale).cpu()
    for name, latent, spread in zip(names, mean, deviation, strict=True):
        if not (torch.isfinite(latent).all() and torch.isfinite(spread).all()):
            raise BadData(f"the autoencoder turns {name} into latents that are not finite")
    return Posterior(mean, deviation)
