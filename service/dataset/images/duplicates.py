"""Images that look alike: two perceptual hashes and the colour must agree."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.diffusion.looks import COLOUR_DISTANCE, Look, channels, distances

PAIRS_AT_ONCE = 1 << 21


def near_any(looks: Sequence[Look], others: Sequence[Look], distance: int) -> list[int | None]:
    """For each look the index of the first of `others` that it is near to; None where it is near to none."""
    if not others:
        return [None] * len(looks)
    table = np.array(others, dtype=np.uint64)
    near = (np.flatnonzero(distances(look, table) <= distance) for look in looks)
    return [int(indices[0]) if len(indices) else None for indices in near]


def near_duplicates(looks: Sequence[Look], distance: int) -> list[int]:
    """For each image the lowest index in its cluster, the clusters being transitive.

    Two images are near when both hashes differ in at most `distance` bits, and the colours in no more than
    COLOUR_DISTANCE. All pairs are compared, in pieces: 100,000 images take a quarter of a minute and no memory to speak of.
    """
    if distance < 0:
        raise ValueError(f"a distance of {distance} bits is none")
    if not looks:
        return []
    table = np.array(looks, dtype=np.uint64)
    different, first, which = np.unique(table, axis=0, return_index=True, return_inverse=True)
    # In the order of their first appearance, so that the lowest index of a cluster is that of its lowest label.
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    labels = _clusters(different[order], distance)
    return [int(index) for index in first[order][labels[place[which.reshape(-1)]]]]


def _clusters(looks: NDArray[np.uint64], distance: int) -> NDArray[np.int64]:
    """For each of the (N, 3) different looks the lowest place in its cluster."""
    phash, dhash = looks[:, 0], looks[:, 1]
    colours = channels(looks[:, 2])
    labels = np.arange(len(looks))
    rows = max(1, PAIRS_AT_ONCE // len(looks))
    for start in range(0, len(looks), rows):
        near = np.bitwise_count(phash[start : start + rows, None] ^ phash[None, start:]) <= distance
        left, right = np.nonzero(near)
        left, right = left[right > left] + start, right[right > left] + start
        alike = np.bitwise_count(dhash[left] ^ dhash[right]) <= distance
        alike &= (np.abs(colours[left] - colours[right]) <= COLOUR_DISTANCE).all(axis=1)
        left, right = left[alike], right[alike]
        for row, others in zip(*_grouped(left, right), strict=True):
            joined = np.unique(labels[np.append(others, row)])
            if len(joined) > 1:
                labels[np.isin(labels, joined)] = joined[0]
    return labels


def _grouped(left: NDArray[np.int64], right: NDArray[np.int64]) -> tuple[list[int], list[NDArray[np.int64]]]:
    """The pairs by their left side, which is sorted."""
    rows, starts = np.unique(left, return_index=True)
    return [int(row) for row in rows], np.split(right, starts[1:]) if len(rows) else []
