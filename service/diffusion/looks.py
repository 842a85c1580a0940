"""How an image looks: two perceptual hashes and its colour, in which images that look alike agree."""

from collections.abc import Sequence
from typing import NamedTuple

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

REDUCED = (64, 64)
COLOUR_DISTANCE = 24
"""Of 255, in each channel of the mean colour. The hashes are of shades of grey: a red heart and a green one are equal to
them, and palettes are half of what a style in few colours consists of."""
UNLIKE = 64
"""Bits in which looks of different colours count as different: all of them."""


class Look(NamedTuple):
    """What two images that look alike share: 64-bit hashes, and the mean colour as 0xRRGGBB."""

    phash: int
    dhash: int
    colour: int

    @classmethod
    def parse(cls, mark: str) -> "Look":
        """The look that is written as `phash:dhash:colour`, in hexadecimal."""
        phash, dhash, colour = (int(part, 16) for part in mark.split(":"))
        return cls(phash, dhash, colour)

    def __str__(self) -> str:
        return f"{self.phash:016x}:{self.dhash:016x}:{self.colour:06x}"


def look_of(image: Image.Image) -> Look:
    """The look of an RGB image, from a reduced copy: of a 512² image phash alone would take 11 ms, all of this takes one."""
    small = image.resize(REDUCED, Image.Resampling.BOX)
    grey = small.convert("L")
    red, green, blue = (int(value) for value in np.asarray(small).reshape(-1, 3).mean(axis=0).round())
    return Look(int(str(imagehash.phash(grey)), 16), int(str(imagehash.dhash(grey)), 16), red << 16 | green << 8 | blue)


def distances(look: Look, others: Sequence[Look] | NDArray[np.uint64]) -> NDArray[np.int64]:
    """(N,): in how many of 64 bits the hash that differs more differs from that of each of the others; UNLIKE where the
    colours are not near. others: N of them, or their table, (N, 3)."""
    table = np.asarray(others, dtype=np.uint64).reshape(-1, len(Look._fields))
    phash, dhash = (np.bitwise_count(table[:, i] ^ np.uint64(look[i])).astype(np.int64) for i in (0, 1))
    near = (np.abs(channels(table[:, 2]) - channels(np.array([look.colour], np.uint64))) <= COLOUR_DISTANCE).all(axis=1)
    return np.where(near, np.maximum(phash, dhash), UNLIKE)


def channels(colours: NDArray[np.uint64]) -> NDArray[np.int16]:
    """Red, green and blue of (N,) colours: (N, 3)."""
    return np.stack([colours >> np.uint64(shift) & np.uint64(255) for shift in (16, 8, 0)], axis=1).astype(np.int16)
