"""What the frozen models say of the data set, computed once and by all processes together."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from service.artifacts import layout
from service.artifacts.manifest import sha256_of
from service.diffusion.family import Parts, Posterior
from service.diffusion.framing import Framing, bucket_of, square
from service.diffusion.images import CaptionedImage, image_size, load_pixels
from service.exits import BadData
from service.logs import progress_bar
from service.settings.train import TrainSettings
from service.storage.interface import ObjectStore
from service.training.encoded.row_cache import CachedRow, RowCache
from service.training.processes.coordinator import Coordinator

CROP = 3
"""The stream of random numbers that places crops; 0 to 2 are those of the training itself."""


@dataclass(frozen=True)
class View:
    """One of the ways in which an image is shown to the model."""

    framing: Framing
    mirrored: bool


@dataclass(frozen=True)
class Viewed:
    """A view of an image, and the key under which its latents are cached."""

    image: CaptionedImage
    view: View
    key: str


def views_of(size: tuple[int, int], digest: str, settings: TrainSettings) -> list[View]:
    """The views that training may draw of an image of (width, height) pixels, crop by crop, mirrored ones second."""
    width = height = settings.resolution
    if settings.buckets:
        width, height = bucket_of(size, settings.resolution, settings.bucket_step, settings.bucket_enlarge)
    framings = [Framing(width, height)]
    if settings.crops > 1:
        places = np.random.default_rng((CROP, settings.seed, int(digest[:12], 16))).random((settings.crops, 2))
        framings = [Framing(width, height, float(left), float(top)) for left, top in places]
    return [View(framing, mirrored) for framing in framings for mirrored in orientations(settings.random_flip)]


def orientations(random_flip: float) -> list[bool]:
    """Whether mirrored, for each orientation that occurs."""
    return [mirrored for mirrored, share in ((False, 1 - random_flip), (True, random_flip)) if share > 0]


def viewed_training_images(images: Sequence[CaptionedImage], settings: TrainSettings) -> Iterator[list[Viewed]]:
    """The views of each image. Raises BadData, naming it, for one that cannot be read."""
    for image in images:
        digest = sha256_of(image.path)
        views = views_of(image_size(image), digest, settings)
        yield [Viewed(image, view, _view_key(digest, view)) for view in views]


def viewed_held_out(images: Sequence[CaptionedImage], resolution: int) -> list[Viewed]:
    """Held-out images are seen in one way, which is the one of the evaluation."""
    view = View(square(resolution), mirrored=False)
    return [Viewed(image, view, _view_key(sha256_of(image.path), view)) for image in images]


def _view_key(digest: str, view: View) -> str:
    """Sixteen hex digits for the content of an image and a view of it."""
    f = view.framing
    return _short_hash(f"{digest} {f.width}x{f.height} {f.left!r} {f.top!r} {view.mirrored}")


def prompt_key(prompt: str) -> str:
    """Sixteen hex digits for the text of a prompt."""
    return _short_hash(prompt)


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def latent_cache(store: ObjectStore, parts: Parts, work_dir: Path) -> RowCache:
    """The posteriors that these image models have given so far, by `view_key`."""
    return RowCache(store, layout.LatentsCache(fingerprint(parts.image_models)).path, Posterior._fields, work_dir)


def prompt_cache(store: ObjectStore, parts: Parts, work_dir: Path) -> RowCache:
    """The conditions that these prompt models have given so far, by `prompt_key`."""
    return RowCache(store, layout.PromptsCache(fingerprint(parts.prompt_models)).path, parts.condition_names, work_dir)


def fingerprint(models: Sequence[nn.Module]) -> str:
    """Twelve hex digits for the weights: a model's name says little, a folder of that name may hold others tomorrow."""
    digest = hashlib.sha256()
    for model in models:
        config: Any = model.config
        config = config if isinstance(config, dict) else config.to_dict()
        facts = {
            name: value for name, value in config.items() if not name.startswith("_") and not name.endswith("_version")
        }
        digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
        for name, tensor in sorted(model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()[:12]


def cache_latents(cache: RowCache, viewed: Sequence[Viewed], parts: Parts, coordinator: Coordinator) -> None:
    """Sees to it that `cache` holds the posterior of every view."""
    by_key = {v.key: v for v in viewed}

    def compute(keys: Sequence[str]) -> Iterator[tuple[str, CachedRow]]:
        for model in parts.image_models:
            model.to(coordinator.accelerator.device)
        for key in progress_bar(keys, "encoding images", len(keys)):
            # One by one: in a batch the latents would depend, in the last bit, on what else is missing.
            pixels = pixels_of(by_key[key])
            posterior = parts.encode_images(pixels[None], [by_key[key].image.name])
            yield key, {name: tensor[0] for name, tensor in posterior._asdict().items()}

    _fill(cache, list(by_key), compute, coordinator)


def pixels_of(viewed: Viewed) -> Tensor:
    """(3, H, W). A mirrored image is encoded for itself: its latent is not the mirrored latent."""
    pixels = load_pixels(viewed.image, viewed.view.framing)
    return pixels.flip(-1) if viewed.view.mirrored else pixels


def cache_prompts(cache: RowCache, prompts: Sequence[str], parts: Parts, coordinator: Coordinator) -> None:
    """Sees to it that `cache` holds the condition of every prompt."""
    by_key = {prompt_key(prompt): prompt for prompt in prompts}

    def compute(keys: Sequence[str]) -> Iterator[tuple[str, CachedRow]]:
        for model in parts.prompt_models:
            model.to(coordinator.accelerator.device)
        for key in progress_bar(keys, "encoding captions", len(keys)):
            yield key, {name: tensor[0] for name, tensor in parts.encode_prompts([by_key[key]]).items()}

    _fill(cache, list(by_key), compute, coordinator)


def _fill(
    cache: RowCache,
    keys: Sequence[str],
    compute: Callable[[Sequence[str]], Iterable[tuple[str, CachedRow]]],
    coordinator: Coordinator,
) -> None:
    """Computes the rows that are not there yet, each process its share; afterwards all of them can be read by all.

    Raises Stopped once any process is told to stop; the rows that were computed until then are kept.
    """
    accelerator = coordinator.accelerator
    missing = [cache.open(keys)]
    # What one process sees as missing another may not, while a third run fills the same cache: the first one decides.
    broadcast_object_list(missing)
    mine = missing[0][accelerator.process_index :: accelerator.num_processes]
    rounds = math.ceil(len(missing[0]) / accelerator.num_processes)
    cache.add(_in_rounds(compute(mine), rounds, coordinator))
    accelerator.wait_for_everyone()
    coordinator.check()
    if lost := cache.open(keys):
        raise BadData(f"{len(lost)} rows of the cache cannot be read after they were written; start again")


def _in_rounds(
    rows: Iterable[tuple[str, CachedRow]], rounds: int, coordinator: Coordinator
) -> Iterator[tuple[str, CachedRow]]:
    """Passes rows on, one a round, which all processes begin together; none any more once one of them is told to stop."""
    rows = iter(rows)
    for _ in range(rounds):
        if coordinator.stop_requested():
            return
        yield from islice(rows, 1)
