"""Randomness without state: everything random follows from (seed, step, position in the global batch).

So a run that is killed and resumed draws what it would have drawn, and so does one on another number of processes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

ORDER, SAMPLE, BUCKETS = range(3)


@dataclass(frozen=True)
class Draw:
    """What is random in one sample.

    posterior_noise, noise: (C, H, W) float32; channel_noise: (C, 1, 1) float32; timestep in [0, timesteps); crop in
    [0, crops).
    """

    flip: bool
    drop_caption: bool
    timestep: int
    crop: int
    posterior_noise: Tensor
    noise: Tensor
    channel_noise: Tensor


def global_batch(seed: int, step: int, batch: int, buckets: Sequence[Sequence[int]]) -> list[int]:
    """Indices of the samples of one step, all of one bucket.

    A bucket's turn comes as often as it has images, in an order that is new for every cycle of as many steps as there
    are images: so each image is seen equally often, whatever the size of its bucket. Within a bucket the images come in
    a new order each epoch, batches running on over its end.
    """
    cycle, place = divmod(step, sum(map(len, buckets)))
    turns, earlier = bucket_turns(seed, cycle, tuple(map(len, buckets)))
    turn = int(turns[place])
    bucket = buckets[turn]
    size = len(bucket)
    start = (cycle * size + int(earlier[place])) * batch
    end = start + batch
    places: list[int] = []
    for epoch in range(start // size, -(-end // size)):
        order = epoch_order(seed, turn, epoch, size)
        places += order[max(start - epoch * size, 0) : end - epoch * size].tolist()
    return [bucket[place] for place in places]


@lru_cache(maxsize=2)
def bucket_turns(seed: int, cycle: int, sizes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Whose turn it is at each step of the cycle, and how many turns the same bucket had before in it."""
    turns = np.random.default_rng((BUCKETS, seed, cycle)).permutation(np.repeat(np.arange(len(sizes)), sizes))
    earlier = np.empty_like(turns)
    for bucket, size in enumerate(sizes):
        earlier[turns == bucket] = np.arange(size)
    return turns, earlier


@lru_cache(maxsize=256)
def epoch_order(seed: int, bucket: int, epoch: int, size: int) -> np.ndarray:
    return np.random.default_rng((ORDER, seed, bucket, epoch)).permutation(size)


def draw(
    seed: int,
    step: int,
    position: int,
    *,
    shape: tuple[int, ...],
    timesteps: int,
    flip: float,
    drop_caption: float,
    crops: int = 1,
) -> Draw:
    """The random part of the sample at `position` of the global batch; `shape` is (C, H, W) of its latents."""
    sequence = np.random.SeedSequence((SAMPLE, seed, step, position))
    rng = np.random.default_rng(sequence)
    generator = _torch_generator(sequence)
    posterior_noise, noise = torch.randn((2, *shape), generator=generator)
    return Draw(
        flip=bool(rng.random() < flip),
        drop_caption=bool(rng.random() < drop_caption),
        timestep=int(rng.integers(timesteps)),
        crop=int(rng.integers(crops)),
        posterior_noise=posterior_noise,
        noise=noise,
        channel_noise=torch.randn((shape[0], 1, 1), generator=generator),
    )


def _torch_generator(sequence: np.random.SeedSequence) -> torch.Generator:
    """A CPU generator: the numbers are the same on every device."""
    seed = int(sequence.generate_state(1, np.uint64)[0]) >> 1
    return torch.Generator().manual_seed(seed)
