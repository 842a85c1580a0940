"""The miniature AutoencoderKL: 64×64 pixels ↔ 16×16×4 latents, so one latent covers one block of the 8-bit style."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F

from service.miniature import corpus
from service.miniature.corpus import Emoji
from service.miniature.fitting import fit

BATCH = 16


def new_autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        sample_size=corpus.SIZE,
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
    )


def train_autoencoder(emoji: Sequence[Emoji], work: Path, steps: int) -> AutoencoderKL:
    """Learns smooth and pixelated pictures alike: a decoder that cannot draw a block could not show the style."""
    torch.manual_seed(0)
    model = new_autoencoder()
    pictures = [e.pixels for e in emoji if not e.held_out]

    def loss(rng: np.random.Generator) -> Tensor:
        batch = to_batch(pictures, rng)
        posterior = model.encode(batch).latent_dist
        drawn = model.decode(posterior.sample()).sample
        pixels = F.l1_loss(drawn, batch) + 2 * F.mse_loss(drawn, batch)
        return pixels + 0.5 * gradient_loss(drawn, batch) + 1e-6 * posterior.kl().mean()

    fit("autoencoder", model, loss, work, steps, learning_rate=1.5e-3)
    model.register_to_config(scaling_factor=round(1 / latent_spread(model, pictures), 5))
    return model


def to_batch(pictures: Sequence[np.ndarray], rng: np.random.Generator) -> Tensor:
    """Half smooth, half on a raster of 16 or 32; colours permuted in a third, so that no colour is rare."""
    batch = []
    for index in rng.integers(len(pictures), size=BATCH):
        picture = corpus.augment(pictures[index], rng)
        if rng.random() < 1 / 3:
            picture = picture[..., rng.permutation(3)]
        if rng.random() < 0.5:
            picture = corpus.pixelate(np.ascontiguousarray(picture), grid=int(rng.choice((16, 32))))
        batch.append(picture)
    return corpus.to_tensor(batch)


def gradient_loss(drawn: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of the horizontal and vertical image gradients. (B, C, H, W) both."""
    return F.l1_loss(drawn.diff(dim=-1), target.diff(dim=-1)) + F.l1_loss(drawn.diff(dim=-2), target.diff(dim=-2))


@torch.no_grad()
def latent_spread(model: AutoencoderKL, pictures: Sequence[np.ndarray]) -> float:
    """Standard deviation of the latents of up to 256 pictures; its inverse is the scaling factor."""
    return float(model.encode(corpus.to_tensor(pictures[:256])).latent_dist.mean.std())
