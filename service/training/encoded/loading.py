"""From a published data set to what the trainer takes: through the caches, and past the frozen models."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from service.diffusion.family import Parts
from service.diffusion.held_out import HeldOut
from service.diffusion.images import CaptionedImage
from service.settings.train import TrainSettings
from service.storage.interface import ObjectStore
from service.training.encoded.encoding import (
    Viewed,
    cache_latents,
    cache_prompts,
    latent_cache,
    orientations,
    prompt_cache,
    prompt_key,
    viewed_held_out,
    viewed_training_images,
)
from service.training.encoded.row_cache import RowCache
from service.training.encoded.samples import EncodedDataset, Posteriors, Rows, on_device, stacked
from service.training.processes.coordinator import Coordinator


@dataclass(frozen=True)
class Prompts:
    """What the denoiser takes for a prompt, as a batch of 1, by the prompt."""

    rows: Rows

    def __getitem__(self, prompt: str) -> dict[str, Tensor]:
        return {name: tensor[None] for name, tensor in self.rows[prompt_key(prompt)].items()}


def encode_dataset(
    parts: Parts,
    train: Sequence[CaptionedImage],
    validation: Sequence[CaptionedImage],
    *,
    also: Sequence[str],
    store: ObjectStore,
    coordinator: Coordinator,
    settings: TrainSettings,
) -> tuple[EncodedDataset, HeldOut, Prompts]:
    """Encodes what no run has encoded before; gives the samples, the held-out set, and the prompts `also` and "".

    Raises Stopped when told to stop, with all kept that was encoded until then; BadData for an
    image that cannot be read, or whose latents are not finite.
    """
    views = list(viewed_training_images(train, settings))
    held_out = viewed_held_out(validation, settings.resolution)
    latents = latent_cache(store, parts, settings.work_dir)
    cache_latents(latents, [view for of_image in views for view in of_image] + held_out, parts, coordinator)

    captions = [image.caption for image in train]
    prompts = [*captions, *(image.caption for image in validation), *also, ""]
    conditions: Rows
    if settings.text_encoder:
        conditions = _tokenized(parts, prompts)
    else:
        conditions = cache = prompt_cache(store, parts, settings.work_dir)
        cache_prompts(cache, prompts, parts, coordinator)

    keys = [[view.key for view in of_image] for of_image in views]
    condition_keys = [prompt_key(caption) for caption in [*captions, ""]]
    policy, device = settings.cache_on_device, coordinator.accelerator.device
    rows = on_device(latents, [key for of_image in keys for key in of_image], device, policy)
    samples = EncodedDataset(
        names=[image.name for image in train],
        posteriors=Posteriors(rows, keys, orientations(settings.random_flip)),
        buckets=_by_size(views),
        shapes=_shapes_of(latents, views),
        condition_rows=on_device(conditions, condition_keys, device, policy),
        condition_keys=condition_keys,
    )
    measured = HeldOut(
        torch.stack([latents[view.key]["mean"] for view in held_out]),
        stacked([conditions[prompt_key(image.caption)] for image in validation], torch.device("cpu")),
    )
    return samples, measured, Prompts({prompt_key(p): conditions[prompt_key(p)] for p in [*also, ""]})


def _tokenized(parts: Parts, prompts: Sequence[str]) -> Rows:
    """Conditions for a denoiser that encodes prompts itself, by `prompt_key`."""
    prompts = list(dict.fromkeys(prompts))
    tokens = parts.tokenize_prompts(prompts)
    return {
        prompt_key(prompt): {name: tensor[number] for name, tensor in tokens.items()}
        for number, prompt in enumerate(prompts)
    }


def _by_size(views: Sequence[Sequence[Viewed]]) -> list[list[int]]:
    """The images of each size, as indices: the buckets."""
    sizes: dict[tuple[int, int], list[int]] = {}
    for index, (first, *_) in enumerate(views):
        sizes.setdefault((first.view.framing.width, first.view.framing.height), []).append(index)
    return [sizes[size] for size in sorted(sizes)]


def _shapes_of(latents: RowCache, views: Sequence[Sequence[Viewed]]) -> list[tuple[int, ...]]:
    """(C, H, W) of the latents of each image: one look into the cache for each size."""
    known: dict[tuple[int, int], tuple[int, ...]] = {}
    shapes = []
    for first, *_ in views:
        size = first.view.framing.width, first.view.framing.height
        if size not in known:
            known[size] = tuple(latents[first.key]["mean"].shape)
        shapes.append(known[size])
    return shapes
