"""The encoded data set as training takes it: which rows an image has, and what a step reads of them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from service.diffusion.family import Condition
from service.training.randomness import Draw

SHARE_OF_MEMORY = 4
"""A cache of at most a quarter of the free memory stays on the device."""


class Rows(Protocol):
    """Rows of tensors by key: mapped from a file, or resident on a device."""

    def __getitem__(self, key: str) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class Posteriors:
    """Of N images, each in the views that training may draw.

    rows: `mean` and `deviation`, (C, H, W) float32, in the denoiser's scale; keys[i]: of image i, crop by crop, for each
    orientation; mirrored[o]: whether orientation o is.
    """

    rows: Rows
    keys: Sequence[Sequence[str]]
    mirrored: Sequence[bool]

    def key_of(self, index: int, draw: Draw) -> str:
        """The key of the view that was drawn of an image."""
        return self.keys[index][draw.crop * len(self.mirrored) + self.mirrored.index(draw.flip)]


@dataclass(frozen=True)
class EncodedDataset:
    """Posteriors and conditions of N images.

    names[i]: the file name of image i, for messages; buckets: the images of each size, as indices; shapes[i]: (C, H, W) of
    the latents of image i, the same in a bucket; condition_rows: tensors by the family's names; condition_keys[i]: of
    the caption of image i, and at the end that of the empty prompt.
    """

    names: Sequence[str]
    posteriors: Posteriors
    buckets: Sequence[Sequence[int]]
    shapes: Sequence[tuple[int, ...]]
    condition_rows: Rows
    condition_keys: Sequence[str]

    def __len__(self) -> int:
        return len(self.names)

    def latents(self, indices: Sequence[int], draws: Sequence[Draw], device: torch.device) -> Tensor:
        """(B, C, H, W) float32: samples of the posteriors, with the noise, the crop and the orientation of `draws`."""
        posteriors = self.posteriors
        rows = [posteriors.rows[posteriors.key_of(i, draw)] for i, draw in zip(indices, draws, strict=True)]
        mean = torch.stack([row["mean"] for row in rows]).to(device)
        deviation = torch.stack([row["deviation"] for row in rows]).to(device)
        return mean + deviation * torch.stack([draw.posterior_noise for draw in draws]).to(device)

    def conditions(self, indices: Sequence[int], draws: Sequence[Draw], device: torch.device) -> dict[str, Tensor]:
        """A batch of conditions: of the captions, of the empty prompt where the caption is dropped."""
        keys = [self.condition_keys[-1 if d.drop_caption else i] for i, d in zip(indices, draws, strict=True)]
        return stacked([self.condition_rows[key] for key in keys], device)


def stacked(conditions: Sequence[Condition], device: torch.device) -> dict[str, Tensor]:
    """B conditions as one of a batch, on the device."""
    return {name: torch.stack([condition[name] for condition in conditions]).to(device) for name in conditions[0]}


def on_device(cache: Rows, keys: Sequence[str], device: torch.device, policy: str) -> Rows:
    """The rows of `keys` on the device, or the cache itself where the policy or their size forbids it."""
    keys = list(dict.fromkeys(keys))
    size = len(keys) * sum(tensor.nbytes for tensor in cache[keys[0]].values())
    if policy == "never" or (policy == "auto" and size > _free_memory(device) / SHARE_OF_MEMORY):
        return cache
    return {key: {name: tensor.to(device) for name, tensor in cache[key].items()} for key in keys}


def _free_memory(device: torch.device) -> int:
    """Bytes."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
