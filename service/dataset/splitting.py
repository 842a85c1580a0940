"""Which images are held out from training."""

from collections.abc import Sequence


def held_out(hashes: Sequence[str], share: float) -> frozenset[str]:
    """The hashes of the images to hold out: about `share` of them, at least one, and at least one is left to train on.

    The lowest hashes are held out. That depends on nothing but the content, so an image stays on its side as the data
    set grows, save for the few at the border. `hashes` are two or more, all different; raises ValueError otherwise.
    """
    if len(set(hashes)) != len(hashes) or len(hashes) < 2:
        raise ValueError("two or more different images are needed for a split")
    count = min(max(1, round(share * len(hashes))), len(hashes) - 1)
    return frozenset(sorted(hashes)[:count])
