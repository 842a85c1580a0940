"""What the LoRA gains over the base model, each gain with a bootstrapped interval. More is better throughout."""

from collections.abc import Callable, Hashable, Sequence
from math import nan

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image
from scipy import stats

from service.artifacts.kinds.evaluation import Interval
from service.evaluation.resampling import BOOTSTRAP, Array, Bootstrap, draws, interval, matrix, membership, vector
from service.exits import BadData

Kernel = Callable[[Array, Array], Array]
"""Of (N, D) and (M, D) features: the (N, M) similarities, each a positive definite function of two images."""

CMMD_BANDWIDTH = 10.0
CMMD_SCALE = 1000.0
VISIBLE_DIFFERENCE = 1.0
"""One step of 8 bits, averaged over the image: what rounding and non-deterministic kernels cannot reach by themselves."""


def kid_kernel(a: Array, b: Array) -> Array:
    """(x·y/d + 1)³ of (N, D) and (M, D) features of any scale: (N, M)."""
    return (a @ b.T / a.shape[1] + 1) ** 3


def cmmd_kernel(a: Array, b: Array) -> Array:
    """1000·exp(−‖x − y‖²/(2·10²)) of (N, D) and (M, D) embeddings of length 1: (N, M)."""
    squared = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    return CMMD_SCALE * np.exp(-np.maximum(squared, 0) / (2 * CMMD_BANDWIDTH**2))


def kid(features_a: ArrayLike, features_b: ArrayLike) -> float:
    """Kernel Inception Distance of two sets of features, over all pairs rather than random subsets.

    The unbiased MMD² (Gretton et al. 2012, eq. 3) with the kernel (x·y/d + 1)³ (Bińkowski et al. 2018). It is 0 on average
    for two sets of one distribution whatever their sizes, so it may fall a little below 0.
    features: (N, D) and (M, D), N and M ≥ 2.
    """
    return _distance(kid_kernel, matrix(features_a), matrix(features_b))


def cmmd(embeddings_a: ArrayLike, embeddings_b: ArrayLike) -> float:
    """CLIP Maximum Mean Discrepancy (Jayasumana et al. 2024) of two sets of CLIP image embeddings of length 1.

    Unbiased as `kid` is, where the authors' code is not: their figures are higher by what two small sets differ by chance.
    embeddings: (N, D) and (M, D), N and M ≥ 2.
    """
    return _distance(cmmd_kernel, matrix(embeddings_a), matrix(embeddings_b))


def style_gain(
    reference: ArrayLike, base: ArrayLike, lora: ArrayLike, groups: Sequence[Hashable], bootstrap: Bootstrap = BOOTSTRAP
) -> Interval:
    """KID of the base's images minus KID of the LoRA's, both against the held-out reference; above 0, the LoRA is nearer.

    reference: (M, D); base and lora: (N, D), row i of both drawn from the same prompt and seed; groups: the prompt of each row.
    A resample draws prompts, each with all its images of both models, and, independently, reference images. The interval
    therefore speaks of other prompts and of other images of the same style.

    A prompt that is drawn twice must not meet itself: its images would pair with their own copies, whose similarity is that
    of a perfect match, and every resample would overrate the sameness of a set by about 1/prompts. So pairs are counted
    within one copy of a prompt and between different prompts, never between two copies of one prompt; with every prompt
    drawn once that is exactly the unbiased estimate.
    """
    return _distance_gain(kid_kernel, (reference, base, lora), groups, bootstrap)


def cmmd_gain(
    reference: ArrayLike, base: ArrayLike, lora: ArrayLike, groups: Sequence[Hashable], bootstrap: Bootstrap = BOOTSTRAP
) -> Interval:
    """CMMD of the base's images minus CMMD of the LoRA's, as `style_gain`; embeddings: of length 1."""
    return _distance_gain(cmmd_kernel, (reference, base, lora), groups, bootstrap)


def similarity_gain(
    reference: ArrayLike, base: ArrayLike, lora: ArrayLike, groups: Sequence[Hashable], bootstrap: Bootstrap = BOOTSTRAP
) -> Interval:
    """Mean cosine of the LoRA's images to the reference minus that of the base's; resampled as `style_gain` is.

    reference: (M, D), base and lora: (N, D) embeddings of length 1; groups: the prompt of each row.
    """
    anchors, theirs, ours = matrix(reference), matrix(base), matrix(lora)
    _check_pairs(theirs, ours, groups)
    cosines = anchors @ (ours - theirs).T
    if not np.isfinite(cosines).all():
        return Interval(nan, nan, nan)
    members = membership(groups)
    rng = np.random.default_rng(bootstrap.seed)
    drawn, anchored = draws(len(members), bootstrap.resamples, rng), draws(len(anchors), bootstrap.resamples, rng)
    sums = ((anchored @ (cosines @ members.T)) * drawn).sum(axis=1)
    gains = sums / (anchored.sum(axis=1) * (drawn @ members.sum(axis=1)))
    return interval(float(gains[0]), gains[1:], bootstrap.confidence, min(len(members), len(anchors)))


def similarity(reference: ArrayLike, images: ArrayLike) -> float:
    """Mean cosine of every image to every reference image, −1 to 1: CLIP-I (Ruiz et al. 2023, section 4.2).

    reference: (M, D), images: (N, D), embeddings of length 1.
    """
    return float((matrix(reference) @ matrix(images).T).mean())


def adherence_gain(
    base_scores: ArrayLike, lora_scores: ArrayLike, groups: Sequence[Hashable], bootstrap: Bootstrap = BOOTSTRAP
) -> Interval:
    """Mean score of the LoRA minus mean score of the base, in points; paired, and resampled by prompt.

    scores: (N,) each, entry i of both from the same prompt and seed; groups: the prompt of each entry.
    """
    return _mean_gain(vector(lora_scores) - vector(base_scores), groups, bootstrap)


def held_out_gain(base_losses: ArrayLike, lora_losses: ArrayLike, bootstrap: Bootstrap = BOOTSTRAP) -> Interval:
    """Mean loss of the base minus mean loss of the LoRA, in the unit of the loss; above 0, the LoRA predicts better.

    losses: (N,) each, one entry a held-out image, both at the same timesteps and noise.
    """
    gains = vector(base_losses) - vector(lora_losses)
    return _mean_gain(gains, range(len(gains)), bootstrap)


def pixel_differences(base_images: Sequence[Image.Image], lora_images: Sequence[Image.Image]) -> Array:
    """Mean absolute difference of each pair (same prompt, same seed, one size), in steps of 8 bits: (N,), 0 to 255."""
    if not base_images:
        raise BadData("there is no pair of images to compare")
    return np.array([_difference(base, lora) for base, lora in zip(base_images, lora_images, strict=True)])


def liveness(differences: ArrayLike) -> float:
    """Share, 0 to 1, of the pairs whose mean absolute pixel difference is above 1/255; differences: (N,)."""
    return float(np.mean([difference > VISIBLE_DIFFERENCE for difference in vector(differences)]))


def mean(values: ArrayLike) -> float:
    """Arithmetic mean of (N,) values, added up one after the other."""
    numbers = [float(value) for value in vector(values)]
    return sum(numbers) / len(numbers)


def _difference(base: Image.Image, lora: Image.Image) -> float:
    pixels = [np.asarray(image.convert("RGB"), dtype=np.int16) for image in (base, lora)]
    return float(np.abs(pixels[0] - pixels[1]).mean())


def _mean_gain(gains: Array, groups: Sequence[Hashable], bootstrap: Bootstrap) -> Interval:
    if len(gains) != len(groups):
        raise ValueError(f"{len(gains)} scores and {len(groups)} prompts do not pair up")
    if not np.isfinite(gains).all():
        return Interval(nan, nan, nan)
    members = membership(groups)
    # Sums and sizes by prompt, drawn together: a prompt with more images weighs more, as it does in the mean itself.
    # The percentile method, because BCa is undefined (NaN and a warning) where all gains are equal.
    result = stats.bootstrap(
        (members @ gains, members.sum(axis=1)),
        lambda sums, sizes, axis: sums.sum(axis=axis) / sizes.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=bootstrap.resamples,
        method="percentile",
        rng=np.random.default_rng(bootstrap.seed),
    )
    return interval(float(gains.mean()), result.bootstrap_distribution, bootstrap.confidence, len(members))


def _distance(kernel: Kernel, a: Array, b: Array) -> float:
    return _mean_of_pairs(kernel(a, a)) + _mean_of_pairs(kernel(b, b)) - 2 * float(kernel(a, b).mean())


def _distance_gain(
    kernel: Kernel, sets: tuple[ArrayLike, ArrayLike, ArrayLike], groups: Sequence[Hashable], bootstrap: Bootstrap
) -> Interval:
    """sets: the reference, the images of the base, and those of the LoRA."""
    anchors, theirs, ours = (matrix(features) for features in sets)
    _check_pairs(theirs, ours, groups)
    if not all(np.isfinite(features).all() for features in (anchors, ours, theirs)):
        return Interval(nan, nan, nan)
    members = membership(groups)
    rng = np.random.default_rng(bootstrap.seed)
    drawn, anchored = draws(len(members), bootstrap.resamples, rng), draws(len(anchors), bootstrap.resamples, rng)
    sizes = members.sum(axis=1)
    # One image a prompt and one prompt drawn throughout leaves no pair at all: such a resample says nothing.
    usable = _over_pairs(np.outer(sizes, sizes) - np.diag(sizes), drawn) > 0
    drawn, anchored = drawn[usable], anchored[usable]
    near = [_closeness(kernel(anchors, side), kernel(side, side), members, drawn, anchored) for side in (theirs, ours)]
    gains = near[1] - near[0]
    return interval(float(gains[0]), gains[1:], bootstrap.confidence, min(len(members), len(anchors)))


def _closeness(to_reference: Array, among: Array, members: Array, drawn: Array, anchored: Array) -> Array:
    """2·mean k(reference, image) − mean k(image, image′) of each resample: −distance without its reference term.

    That term is the same for base and LoRA and falls out of their difference.
    to_reference: (M, N) and among: (N, N), the kernel; members: (G, N); drawn: (R, G) and anchored: (R, M), how often each
    prompt and each reference image was drawn; returns (R,).
    """
    sizes = members.sum(axis=1)
    nearness = ((anchored @ (to_reference @ members.T)) * drawn).sum(axis=1)
    np.fill_diagonal(among, 0)
    sameness = _over_pairs(members @ among @ members.T, drawn)
    pairs = _over_pairs(np.outer(sizes, sizes) - np.diag(sizes), drawn)
    return 2 * nearness / (anchored.sum(axis=1) * (drawn @ sizes)) - sameness / pairs


def _check_pairs(theirs: Array, ours: Array, groups: Sequence[Hashable]) -> None:
    if not len(ours) == len(theirs) == len(groups):
        raise ValueError(
            f"{len(theirs)} images of the base, {len(ours)} of the LoRA and {len(groups)} prompts do not pair up"
        )


def _over_pairs(by_prompt: Array, drawn: Array) -> Array:
    """Sums a symmetric (G, G) matrix over the pairs of prompts of each resample, no copy of a prompt meeting another: (R,)."""
    within = np.diag(by_prompt)
    return ((drawn @ (by_prompt - np.diag(within))) * drawn).sum(axis=1) + drawn @ within


def _mean_of_pairs(kernel: Array) -> float:
    """Mean over the pairs of two different samples."""
    count = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (count * (count - 1)))
