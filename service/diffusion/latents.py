"""Images → the autoencoder's posterior."""

from collections.abc import Sequence

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from service.diffusion.images import CaptionedImage, load_pixels
from service.exits import BadData


@torch.no_grad()
def encode_images(
    vae: AutoencoderKL, images: Sequence[CaptionedImage], resolution: int, mirrored: bool = False
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the posterior, both (B, C, H, W) float32 on the CPU, not yet scaled.

    A mirrored image is encoded for itself: the autoencoder of a mirrored image is not the mirrored latent.
    Raises BadData, naming the image, when a latent is not finite.
    """
    pixels = load_pixels(images, resolution)
    posterior = vae.encode((pixels.flip(-1) if mirrored else pixels).to(vae.device, vae.dtype)).latent_dist
    mean, deviation = posterior.mean.float().cpu(), posterior.std.float().cpu()
    for image, latent in zip(images, mean, strict=True):
        if not torch.isfinite(latent).all():
            raise BadData(f"the autoencoder turns {image.name} into latents that are not finite")
    return mean, deviation
