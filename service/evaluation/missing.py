"""What would decide what is held: how many more held-out images, prompts or seeds, if the gain stays what it was measured as.

The half-width of an interval goes with the root of the variance, and each part of the variance with one over the number of
what it comes from. All of it is an estimate: so is the variance.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import ArrayLike

from service.artifacts.kinds.evaluation import Interval, Missing
from service.evaluation.metrics import Kernel
from service.evaluation.resampling import Array, matrix, membership, vector

MOST_TIMES = 100
"""More than so many times what there is now is nothing that anybody could add: the gain lies at the threshold."""


@dataclass(frozen=True)
class Doubt:
    """Where an interval's width comes from. of_prompts, of_seeds, of_held_out: parts of the variance, in any one unit.

    of_seeds is what is left of the differences between images of one prompt; 0 where a prompt has one image. prompts,
    seeds, held_out: how many there are. Held-out images are where further prompts come from.
    """

    of_prompts: float
    of_seeds: float
    of_held_out: float
    prompts: int
    seeds: int
    held_out: int


def missing(gain: Interval, threshold: float, doubt: Doubt) -> Missing | None:
    """How many more of each, alone, would draw the interval to one side of its threshold; None where it lies there already.

    A field is None where no number of these alone would do, and all are where the gain lies at the threshold. More held-out
    images come with their captions as prompts; prompts alone are those that held-out images have and that are not drawn yet.
    """
    if not gain.low <= threshold <= gain.high:
        return None
    width = gain.value - gain.low if gain.value > threshold else gain.high - gain.value
    # The share of the variance that may remain. At the end of the interval nothing is to be gained, and one more decides.
    allowed = (abs(gain.value - threshold) / width) ** 2 if width else 0.0
    total = doubt.of_prompts + doubt.of_seeds + doubt.of_held_out
    if allowed * MOST_TIMES < 1 or not total:
        return Missing(held_out_images=None, prompts=None, seeds=None)
    prompts = _needed(doubt.of_prompts + doubt.of_seeds, doubt.of_held_out, allowed * total, doubt.prompts)
    seeds = _needed(doubt.of_seeds, doubt.of_prompts + doubt.of_held_out, allowed * total, doubt.seeds)
    # Of both as many times more as the whole variance is too large.
    all_prompts = _needed(total, 0, allowed * total, doubt.prompts) or 0
    images = (_needed(total, 0, allowed * total, doubt.held_out) or 0) if doubt.of_held_out else 0
    available = prompts is not None and prompts <= doubt.held_out
    return Missing(
        held_out_images=max(all_prompts, images) - doubt.held_out
        if max(all_prompts, images) > doubt.held_out
        else None,
        prompts=prompts - doubt.prompts if prompts is not None and available else None,
        seeds=seeds - doubt.seeds if seeds is not None else None,
    )


def _needed(shrinking: float, staying: float, allowed: float, count: int) -> int | None:
    """The least number of which `count` gave the variance `shrinking`, so that it and what stays are below what is allowed."""
    if not shrinking or allowed <= staying:
        return None
    needed = max(ceil(count * shrinking / (allowed - staying)), count + 1)
    return needed if needed <= count * MOST_TIMES else None


def doubt_of_mean(gains: ArrayLike, groups: Sequence[Hashable], held_out: int) -> Doubt:
    """Of the mean of (N,) gains, of which those of one prompt belong together; held_out: how many held-out images there are."""
    of_prompts, of_seeds = _parts(vector(gains), membership(groups))
    return _doubt(of_prompts, of_seeds, 0.0, groups, held_out)


def doubt_of_similarity(reference: ArrayLike, base: ArrayLike, lora: ArrayLike, groups: Sequence[Hashable]) -> Doubt:
    """Of `metrics.similarity_gain`, of the same arguments."""
    cosines = matrix(reference) @ (matrix(lora) - matrix(base)).T
    return _of_influences(cosines.mean(axis=0), cosines.mean(axis=1), groups)


def doubt_of_distance(
    kernel: Kernel, reference: ArrayLike, base: ArrayLike, lora: ArrayLike, groups: Sequence[Hashable]
) -> Doubt:
    """Of `metrics.style_gain` and `metrics.cmmd_gain`, of the same arguments, by the influence of each image on the gain.

    The first term of the von Mises expansion of MMD²: 2·mean k(reference, x) − 2·mean k(x, x′) for a drawn image x.
    """
    anchors, theirs, ours = matrix(reference), matrix(base), matrix(lora)
    (near_theirs, of_theirs), (near_ours, of_ours) = (_influences(kernel, anchors, side) for side in (theirs, ours))
    return _of_influences(of_ours - of_theirs, near_ours - near_theirs, groups)


def _influences(kernel: Kernel, anchors: Array, images: Array) -> tuple[Array, Array]:
    """(M,) of the reference images and (N,) of the drawn ones."""
    to_reference, among = kernel(anchors, images), kernel(images, images)
    np.fill_diagonal(among, 0)
    return 2 * to_reference.mean(axis=1), 2 * to_reference.mean(axis=0) - 2 * among.sum(axis=1) / (len(images) - 1)


def _of_influences(of_images: Array, of_reference: Array, groups: Sequence[Hashable]) -> Doubt:
    of_prompts, of_seeds = _parts(of_images, membership(groups))
    of_held_out = float(of_reference.var(ddof=1) / len(of_reference))
    return _doubt(of_prompts, of_seeds, of_held_out, groups, len(of_reference))


def _parts(values: Array, members: Array) -> tuple[float, float]:
    """Of the variance of the mean: what prompts differ by themselves, and what the images of one prompt differ."""
    sizes = members.sum(axis=1)
    means = members @ values / sizes
    between = float(means.var(ddof=1)) / len(means)
    residuals = values - means @ members
    free = len(values) - len(means)
    within = float((residuals**2).sum() / free / len(values)) if free else 0.0
    # Two estimates of one variance: the part can come out larger than the whole.
    return max(between - within, 0.0), min(within, between)


def _doubt(of_prompts: float, of_seeds: float, of_held_out: float, groups: Sequence[Hashable], held_out: int) -> Doubt:
    prompts = len(set(groups))
    return Doubt(of_prompts, of_seeds, of_held_out, prompts, len(groups) // prompts, held_out)
