"""Which images are held out from training."""

from collections.abc import Sequence
from itertools import accumulate


def held_out(clusters: Sequence[Sequence[str]], share: float) -> frozenset[str]:
    """The hashes of the images to hold out: whole clusters, as near to `share` of all images as they allow.

    A cluster is a group of images that look alike: one of them in training would give the others away. At least one
    cluster is held out, and at least one is left to train on. The clusters with the lowest hashes are held out. That
    depends on nothing but the content, so an image stays on its side as the data set grows, save for the few at the
    border. Raises ValueError for fewer than two clusters, an empty one, or repeated hashes.
    """
    hashes = [sha256 for cluster in clusters for sha256 in cluster]
    if len(set(hashes)) != len(hashes) or len(clusters) < 2 or not all(clusters):
        raise ValueError("two or more clusters of different images are needed for a split")
    ordered = sorted(clusters, key=min)
    sizes = list(accumulate(map(len, ordered)))
    wanted = round(share * len(hashes))
    count = min(range(1, len(ordered)), key=lambda taken: abs(sizes[taken - 1] - wanted))
    return frozenset(sha256 for cluster in ordered[:count] for sha256 in cluster)
