"""Randomness without state: everything random follows from (seed, step, position in the global batch).

So a run that is killed and resumed draws what it would have drawn, and so does one on another number of processes.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

ORDER, SAMPLE = range(2)


@dataclass(frozen=True)
class Draw:
    """What is random in one sample.

    posterior_noise, noise: (C, H, W) float32; channel_noise: (C, 1, 1) float32; timestep in [0, timesteps).
    """

    flip: bool
    drop_caption: bool
    timestep: int
    posterior_noise: Tensor
    noise: Tensor
    channel_noise: Tensor


def global_batch(seed: int, step: int, batch: int, dataset_size: int) -> list[int]:
    """Indices of the samples of one step: the data set in a new order each epoch, batches running on over its end."""
    positions = range(step * batch, (step + 1) * batch)
    orders = {epoch: epoch_order(seed, epoch, dataset_size) for epoch in {p // dataset_size for p in positions}}
    return [int(orders[p // dataset_size][p % dataset_size]) for p in positions]


def epoch_order(seed: int, epoch: int, dataset_size: int) -> np.ndarray:
    return np.random.default_rng((ORDER, seed, epoch)).permutation(dataset_size)


def draw(
    seed: int, step: int, position: int, shape: tuple[int, ...], timesteps: int, flip: float, drop_caption: float
) -> Draw:
    """The random part of the sample at `position` of the global batch; `shape` is (C, H, W) of its latents."""
    key = (SAMPLE, seed, step, position)
    rng = np.random.default_rng(key)
    generator = torch_generator(key)
    return Draw(
        flip=bool(rng.random() < flip),
        drop_caption=bool(rng.random() < drop_caption),
        timestep=int(rng.integers(timesteps)),
        posterior_noise=torch.randn(shape, generator=generator),
        noise=torch.randn(shape, generator=generator),
        channel_noise=torch.randn((shape[0], 1, 1), generator=generator),
    )


def torch_generator(key: tuple[int, ...]) -> torch.Generator:
    """A CPU generator for a tuple of non-negative integers: the numbers are the same on every device."""
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))
    return torch.Generator().manual_seed(seed)
