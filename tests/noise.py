"""A data set of noise, as the trainer takes it."""

import torch

from service.diffusion.sd15.prompts import STATES
from service.training.encoded.samples import EncodedDataset, Posteriors

CPU = torch.device("cpu")


def random_dataset(
    images: int, shape: tuple[int, ...], condition: tuple[int, ...], device: torch.device = CPU
) -> EncodedDataset:
    """`images` posteriors of that shape, (C, H, W), each mirrored too, with conditions of theirs, (L, D); always the same."""
    generator = torch.Generator().manual_seed(1)
    keys = [[f"{number}", f"{number} mirrored"] for number in range(images)]
    return EncodedDataset(
        names=[f"{number}.png" for number in range(images)],
        posteriors=Posteriors(
            rows={
                key: {
                    "mean": torch.randn(shape, generator=generator).to(device),
                    "deviation": 0.1 * torch.rand(shape, generator=generator).to(device),
                }
                for of_image in keys
                for key in of_image
            },
            keys=keys,
            mirrored=[False, True],
        ),
        buckets=[range(images)],
        shapes=[shape] * images,
        condition_rows={
            str(n): {STATES: torch.randn(condition, generator=generator).to(device)} for n in range(images + 1)
        },
        condition_keys=[str(number) for number in range(images + 1)],
    )
