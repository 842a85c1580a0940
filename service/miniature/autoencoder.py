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
SPREAD_FLOOR = 0.05


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
    whiten(model, pictures)
    model.register_to_config(scaling_factor=round(1 / float(latents_of(model, pictures).std()), 5))
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
def whiten(model: AutoencoderKL, pictures: Sequence[np.ndarray]) -> None:
    """Turns the latents so that their channels have mean 0, much the same spread and little correlation; what is decoded
    stays the same.

    As learned, the channels differ threefold in spread, and much of a colour is told by narrow combinations of them, far
    below the noise: a small denoiser that predicts ε would draw the right shapes in the wrong colours.
    """
    latents = latents_of(model, pictures).transpose(0, 1).flatten(1).double()
    mean = latents.mean(dim=1)
    spread, axes = torch.linalg.eigh(torch.cov(latents))
    # A direction that the decoder hardly looks at must not be blown up to the size of the others.
    spread = spread + SPREAD_FLOOR * spread.max()
    into = (axes * spread.rsqrt()) @ axes.T
    back = (axes * spread.sqrt()) @ axes.T
    quant, post = model.quant_conv, model.post_quant_conv
    channels = len(mean)
    kernel, bias = quant.weight.data[:channels, :, 0, 0].double(), quant.bias.data[:channels].double()
    quant.weight.data[:channels, :, 0, 0] = (into @ kernel).float()
    quant.bias.data[:channels] = (into @ (bias - mean)).float()
    # A posterior has no room for correlated noise: all of it shrinks as in the widest direction, so it never grows anywhere.
    quant.bias.data[channels:] -= float(spread.max().log())
    kernel = post.weight.data[:, :, 0, 0].double()
    post.bias.data += (kernel @ mean).float()
    post.weight.data[:, :, 0, 0] = (kernel @ back).float()


@torch.no_grad()
def latents_of(model: AutoencoderKL, pictures: Sequence[np.ndarray]) -> Tensor:
    """(pictures, 4, 16, 16): the means of the posteriors, not scaled."""
    batches = [corpus.to_tensor(pictures[start : start + 64]) for start in range(0, len(pictures), 64)]
    return torch.cat([model.encode(batch).latent_dist.mean for batch in batches])
