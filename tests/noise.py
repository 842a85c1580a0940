"""A data set of noise, as the trainer takes it."""

import torch

from service.training.samples import EncodedDataset


def random_dataset(
    images: int, shape: tuple[int, ...], condition: tuple[int, ...], device: torch.device
) -> EncodedDataset:
    """`images` posteriors of that shape, (C, H, W), each mirrored too, with conditions of theirs, (L, D)."""
    keys = [[f"{number}", f"{number} mirrored"] for number in range(images)]
    return EncodedDataset(
        names=[str(number) for number in range(images)],
        latents_of={
            key: {"mean": torch.randn(shape, device=device), "deviation": torch.rand(shape, device=device)}
            for of_image in keys
            for key in of_image
        },
        latent_keys=keys,
        mirrored=[False, True],
        buckets=[range(images)],
        shapes=[shape] * images,
        conditions_of={str(n): {"condition": torch.randn(condition, device=device)} for n in range(images + 1)},
        condition_keys=[str(number) for number in range(images + 1)],
    )
