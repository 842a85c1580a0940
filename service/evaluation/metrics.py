"""What the LoRA gains over the base model, each gain with a bootstrapped interval. More is better throughout."""

from collections.abc import Hashable, Sequence
from math import nan

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from scipy.stats import bootstrap

from service.artifacts.kinds.evaluation import Interval
from service.exits import BadData

Array = NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 2000
VISIBLE_DIFFERENCE = 1.0
"""One step of 8 bits, averaged over the image: what rounding and non-deterministic kernels cannot reach by themselves."""


def kid(features_a: ArrayLike, features_b: ArrayLike) -> float:
    """Kernel Inception Distance of two sets of features, over all pairs rather than random subsets.

    The unbiased MMD² (Gretton et al. 2012, eq. 3) with the kernel (x·y/d + 1)³ (Bińkowski et al. 2018). It is 0 on average
    for two sets of one distribution whatever their sizes, so it may fall a little below 0.
    features: (N, D) and (M, D), N and M ≥ 2.
    """
    a, b = _matrix(features_a), _matrix(features_b)
    return _mean_of_pairs(_kernel(a, a)) + _mean_of_pairs(_kernel(b, b)) - 2 * float(_kernel(a, b).mean())


def style_gain(
    reference: ArrayLike,
    base: ArrayLike,
    lora: ArrayLike,
    groups: Sequence[Hashable],
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """KID of the base's images minus KID of the LoRA's, both against the held-out reference; above 0, the LoRA is nearer.

    reference: (M, D); base and lora: (N, D), row i of both drawn from the same prompt and seed; groups: the prompt of each row.
    A resample draws prompts, each with all its images of both models, and, independently, reference images. The interval
    (percentile bootstrap) therefore speaks of other prompts and of other images of the same style.

    A prompt that is drawn twice must not meet itself: its images would pair with their own copies, whose similarity is that
    of a perfect match, and every resample would overrate the sameness of a set by about 1/prompts. So pairs are counted
    within one copy of a prompt and between different prompts, never between two copies of one prompt; with every prompt
    drawn once that is exactly the unbiased estimate.
    """
    anchors, ours, theirs = _matrix(reference), _matrix(lora), _matrix(base)
    if not len(ours) == len(theirs) == len(groups):
        raise ValueError(
            f"{len(theirs)} images of the base, {len(ours)} of the LoRA and {len(groups)} prompts do not pair up"
        )
    if not all(np.isfinite(features).all() for features in (anchors, ours, theirs)):
        return Interval(nan, nan, nan)
    members = _membership(groups)
    prompts, references = len(members), len(anchors)
    rng = np.random.default_rng(seed)
    # The first row draws everything once: the estimate itself.
    drawn = np.vstack([np.ones(prompts), rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=resamples)])
    anchored = np.vstack(
        [np.ones(references), rng.multinomial(references, np.full(references, 1 / references), resamples)]
    )
    sizes = members.sum(axis=1)
    # One image a prompt and one prompt drawn throughout leaves no pair at all: such a resample says nothing.
    usable = _over_pairs(np.outer(sizes, sizes) - np.diag(sizes), drawn) > 0
    drawn, anchored = drawn[usable], anchored[usable]
    gains = _closeness(anchors, ours, members, drawn, anchored) - _closeness(anchors, theirs, members, drawn, anchored)
    return _interval(float(gains[0]), gains[1:], confidence)


def adherence_gain(
    base_scores: ArrayLike,
    lora_scores: ArrayLike,
    groups: Sequence[Hashable],
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Mean score of the LoRA minus mean score of the base, in points; paired, and resampled by prompt.

    scores: (N,) each, entry i of both from the same prompt and seed; groups: the prompt of each entry.
    """
    return _mean_gain(_vector(lora_scores) - _vector(base_scores), groups, confidence, resamples, seed)


def held_out_gain(
    base_losses: ArrayLike,
    lora_losses: ArrayLike,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Mean loss of the base minus mean loss of the LoRA, in the unit of the loss; above 0, the LoRA predicts better.

    losses: (N,) each, one entry a held-out image, both at the same timesteps and noise.
    """
    gains = _vector(base_losses) - _vector(lora_losses)
    return _mean_gain(gains, range(len(gains)), confidence, resamples, seed)


def pixel_differences(base_images: Sequence[Image.Image], lora_images: Sequence[Image.Image]) -> Array:
    """Mean absolute difference of each pair (same prompt, same seed, one size), in steps of 8 bits: (N,), 0 to 255."""
    if not base_images:
        raise BadData("there is no pair of images to compare")
    return np.array([_difference(base, lora) for base, lora in zip(base_images, lora_images, strict=True)])


def liveness(differences: ArrayLike) -> float:
    """Share, 0 to 1, of the pairs whose mean absolute pixel difference is above 1/255; differences: (N,)."""
    return float(np.mean([difference > VISIBLE_DIFFERENCE for difference in _vector(differences)]))


def mean(values: ArrayLike) -> float:
    """Arithmetic mean of (N,) values, added up one after the other."""
    numbers = [float(value) for value in _vector(values)]
    return sum(numbers) / len(numbers)


def _difference(base: Image.Image, lora: Image.Image) -> float:
    pixels = [np.asarray(image.convert("RGB"), dtype=np.int16) for image in (base, lora)]
    return float(np.abs(pixels[0] - pixels[1]).mean())


def _mean_gain(gains: Array, groups: Sequence[Hashable], confidence: float, resamples: int, seed: int) -> Interval:
    if len(gains) != len(groups):
        raise ValueError(f"{len(gains)} scores and {len(groups)} prompts do not pair up")
    if not np.isfinite(gains).all():
        return Interval(nan, nan, nan)
    members = _membership(groups)
    # Sums and sizes by prompt, drawn together: a prompt with more images weighs more, as it does in the mean itself.
    # The percentile method, because BCa is undefined (NaN and a warning) where all gains are equal.
    result = bootstrap(
        (members @ gains, members.sum(axis=1)),
        lambda sums, sizes, axis: sums.sum(axis=axis) / sizes.sum(axis=axis),
        paired=True,
        vectorized=True,
        confidence_level=confidence,
        n_resamples=resamples,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return _interval(float(gains.mean()), result.bootstrap_distribution, confidence)


def _closeness(reference: Array, images: Array, members: Array, drawn: Array, anchored: Array) -> Array:
    """2·mean k(reference, image) − mean k(image, image′) of each resample: −KID without its reference term.

    That term is the same for base and LoRA and falls out of their difference.
    reference: (M, D); images: (N, D); members: (G, N); drawn: (R, G) and anchored: (R, M), how often each prompt and each
    reference image was drawn; returns (R,).
    """
    sizes = members.sum(axis=1)
    to_reference = ((anchored @ (_kernel(reference, images) @ members.T)) * drawn).sum(axis=1)
    among = _kernel(images, images)
    np.fill_diagonal(among, 0)
    similarity = _over_pairs(members @ among @ members.T, drawn)
    pairs = _over_pairs(np.outer(sizes, sizes) - np.diag(sizes), drawn)
    return 2 * to_reference / (anchored.sum(axis=1) * (drawn @ sizes)) - similarity / pairs


def _over_pairs(by_prompt: Array, drawn: Array) -> Array:
    """Sums a symmetric (G, G) matrix over the pairs of prompts of each resample, no copy of a prompt meeting another: (R,)."""
    within = np.diag(by_prompt)
    return ((drawn @ (by_prompt - np.diag(within))) * drawn).sum(axis=1) + drawn @ within


def _interval(value: float, distribution: Array, confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    low, high = np.quantile(distribution, [tail, 1 - tail])
    # A skewed distribution of few prompts can leave its own estimate outside; an interval never excludes it.
    return Interval(value, min(float(low), value), max(float(high), value))


def _membership(groups: Sequence[Hashable]) -> Array:
    """(G, N): 1 where image n belongs to prompt g."""
    order = {group: index for index, group in enumerate(dict.fromkeys(groups))}
    if len(order) < 2:
        raise BadData(f"an interval needs images of at least 2 prompts, and there are {len(order)}")
    return np.eye(len(order))[:, [order[group] for group in groups]]


def _kernel(a: Array, b: Array) -> Array:
    return (a @ b.T / a.shape[1] + 1) ** 3


def _mean_of_pairs(kernel: Array) -> float:
    """Mean over the pairs of two different samples."""
    count = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (count * (count - 1)))


def _matrix(features: ArrayLike) -> Array:
    matrix = np.asarray(features, dtype=np.float64)
    if matrix.ndim != 2:
        raise ValueError(f"features have the shape (images, features), and these have {matrix.shape}")
    if len(matrix) < 2:
        raise BadData(f"a distance of styles needs at least 2 images on each side, and there are {len(matrix)}")
    return matrix


def _vector(scores: ArrayLike) -> Array:
    return np.asarray(scores, dtype=np.float64).reshape(-1)
