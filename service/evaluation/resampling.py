"""Intervals from a bootstrap by prompt: what is drawn again, and which ends the resamples give."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, t

from service.artifacts.kinds.evaluation import Interval
from service.exits import BadData

Array = NDArray[np.float64]


class Bootstrap(NamedTuple):
    """How an interval is found. confidence: that it holds the truth, 0 to 1; seed: of what is drawn."""

    confidence: float = 0.95
    resamples: int = 2000
    seed: int = 0


BOOTSTRAP = Bootstrap()


def draws(count: int, resamples: int, rng: np.random.Generator) -> Array:
    """(1 + resamples, count): how often each of `count` is drawn; the first row draws everything once, the estimate itself."""
    return np.vstack([np.ones(count), rng.multinomial(count, np.full(count, 1 / count), size=resamples)])


def membership(groups: Sequence[Hashable]) -> Array:
    """(G, N): 1 where image n belongs to prompt g. Raises BadData for fewer than 2 prompts."""
    order = {group: index for index, group in enumerate(dict.fromkeys(groups))}
    if len(order) < 2:
        raise BadData(f"an interval needs images of at least 2 prompts, and there are {len(order)}")
    return np.eye(len(order))[:, [order[group] for group in groups]]


def interval(value: float, distribution: ArrayLike, confidence: float, observations: int) -> Interval:
    """The ends between which a resampled figure lies, for `observations` that were resampled; (R,) resamples.

    The expanded percentile interval (Hesterberg 2015, "What teachers should know about the bootstrap", section 4.2): the
    plain one takes the sample's spread for the population's, and of 8 prompts its 95 % cover the truth 89 times of 100.
    """
    tail = _tail(confidence, observations)
    low, high = np.quantile(np.asarray(distribution), [tail, 1 - tail])
    # A skewed distribution of few prompts can leave its own estimate outside; an interval never excludes it.
    return Interval(value, min(float(low), value), max(float(high), value))


def vector(scores: ArrayLike) -> Array:
    """(N,) float64."""
    return np.asarray(scores, dtype=np.float64).reshape(-1)


def matrix(features: ArrayLike) -> Array:
    """(N, D) float64. Raises BadData for fewer than 2 images."""
    found = np.asarray(features, dtype=np.float64)
    if found.ndim != 2:
        raise ValueError(f"features have the shape (images, features), and these have {found.shape}")
    if len(found) < 2:
        raise BadData(f"a distance of styles needs at least 2 images on each side, and there are {len(found)}")
    return found


def _tail(confidence: float, observations: int) -> float:
    """What is left out at each end: of a normal's quantile, so that it lies where Student's does for the true spread."""
    if observations < 2:
        return 0.0
    wider = np.sqrt(observations / (observations - 1)) * t.ppf((1 - confidence) / 2, observations - 1)
    return float(norm.cdf(wider))
