"""How different the images of one prompt are from each other."""

from collections.abc import Hashable, Sequence
from math import nan

import numpy as np
from numpy.typing import ArrayLike

from service.artifacts.kinds.evaluation import Interval
from service.evaluation.resampling import BOOTSTRAP, Array, Bootstrap, draws, interval, matrix, membership


def diversity(embeddings: ArrayLike, groups: Sequence[Hashable]) -> float:
    """Mean distance 1 − cosine of two images of one prompt, over all such pairs; NaN where no prompt has two images.

    embeddings: (N, D) of length 1; groups: the prompt of each.
    """
    distances, pairs = _by_prompt(matrix(embeddings), membership(groups))
    return float(distances.sum() / pairs.sum()) if pairs.sum() else nan


def diversity_gain(
    base: ArrayLike, lora: ArrayLike, groups: Sequence[Hashable], bootstrap: Bootstrap = BOOTSTRAP
) -> Interval:
    """By which share the LoRA's images of one prompt differ more than the base's: −0.2 for a fifth less; by prompt.

    base, lora: (N, D) embeddings of length 1, row i of both from the same prompt and seed; groups: the prompt of each row.
    NaN where no prompt has two images, or all of the base's are the same.
    """
    theirs, ours = matrix(base), matrix(lora)
    members = membership(groups)
    before, pairs = _by_prompt(theirs, members)
    after, _ = _by_prompt(ours, members)
    drawn = draws(len(members), bootstrap.resamples, np.random.default_rng(bootstrap.seed))
    # Prompts of which the base drew one and the same picture throughout leave nothing to compare with.
    usable = drawn @ before > 0
    if not usable[0] or not (pairs.any() and np.isfinite(after).all()):
        return Interval(nan, nan, nan)
    gains = (drawn[usable] @ after) / (drawn[usable] @ before) - 1
    return interval(float(gains[0]), gains[1:], bootstrap.confidence, len(members))


def _by_prompt(embeddings: Array, members: Array) -> tuple[Array, Array]:
    """(G,): the sum of the distances of all pairs of a prompt's images, and how many pairs there are."""
    sizes = members.sum(axis=1)
    apart = np.maximum(1 - embeddings @ embeddings.T, 0)
    np.fill_diagonal(apart, 0)
    return np.einsum("gi,ij,gj->g", members, apart, members, optimize=True) / 2, sizes * (sizes - 1) / 2
