"""Whether what was drawn is what was learned by heart: how near it is to training images, and how near others are."""

from collections.abc import Hashable, Sequence
from math import nan

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageOps

from service.artifacts.kinds.evaluation import Interval
from service.diffusion.looks import UNLIKE, Look, distances, look_of
from service.evaluation.resampling import BOOTSTRAP, Array, Bootstrap, draws, interval, membership, vector

CALIBRATION = 0.99
"""The share of the held-out images that are no nearer to a training image than what counts as near."""
ALIKE = 8
"""In how many of 64 bits two perceptual hashes may differ for images that look alike; data-prep, by its default, keeps no
held-out image that is so near to a training image."""


def nearest(embeddings: ArrayLike, training: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """For each of (N, D) embeddings, of length 1: which of the (T, D) training images is nearest, and its cosine; (N,) each."""
    cosines = np.asarray(embeddings, np.float32) @ np.asarray(training, np.float32).T
    return cosines.argmax(axis=1), cosines.max(axis=1)


def look_distances(images: Sequence[Image.Image], training: Sequence[Look]) -> NDArray[np.int64]:
    """(N,): in how many of 64 bits each image differs from the training image that looks most like it, either way round.

    Mirrored as well, because a training that flips its images learns both. 64 where none has a colour that is near.
    """
    if not training:
        return np.full(len(images), UNLIKE)
    views = ([look_of(view) for view in (image, ImageOps.mirror(image))] for image in images)
    return np.array([min(int(distances(look, training).min()) for look in looks) for looks in views])


def near_limit(held_out: ArrayLike) -> float:
    """The cosine above which an image is nearer to a training image than held-out ones are, by their 99th percentile.

    held_out: (M,), of each held-out image to the nearest training image. Calibrated, because a fixed cosine raises false
    alarms: images of one narrow style lie above 0.95 without any of them being copied.
    """
    return float(np.quantile(vector(held_out), CALIBRATION))


def near_share(nearest_cosines: ArrayLike, limit: float) -> float:
    """Share, 0 to 1, of (N,) images that are nearer to a training image than `limit`."""
    return float((vector(nearest_cosines) > limit).mean())


def memorised_gain(
    held_out: ArrayLike, base: ArrayLike, lora: ArrayLike, groups: Sequence[Hashable], bootstrap: Bootstrap = BOOTSTRAP
) -> Interval:
    """Share of the base's images that are too near to a training image, minus that of the LoRA's; below 0, it copies.

    held_out: (M,), base and lora: (N,) cosines to the nearest training image; groups: the prompt of each image. A resample
    draws prompts and, independently, the held-out images that calibrate what is too near.
    """
    calibrating, theirs, ours = vector(held_out), vector(base), vector(lora)
    if not all(np.isfinite(cosines).all() for cosines in (calibrating, theirs, ours)):
        return Interval(nan, nan, nan)
    members = membership(groups)
    rng = np.random.default_rng(bootstrap.seed)
    drawn = draws(len(members), bootstrap.resamples, rng)
    drawn_again = calibrating[rng.integers(len(calibrating), size=(bootstrap.resamples, len(calibrating)))]
    limits = np.append(near_limit(calibrating), np.quantile(drawn_again, CALIBRATION, axis=1))[:, None]
    excess: Array = (theirs > limits).astype(np.float64) - (ours > limits)
    gains = ((excess @ members.T) * drawn).sum(axis=1) / (drawn @ members.sum(axis=1))
    return interval(float(gains[0]), gains[1:], bootstrap.confidence, min(len(members), len(calibrating)))
