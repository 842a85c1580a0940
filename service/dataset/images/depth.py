"""Samples of 16 bits to 8: by the bits that are used, or a picture of 12 would come out nearly black."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from service.dataset.candidates import Reason, Rejection
from service.dataset.images.formats import open_image

FULL_DEPTH = 16
DEPTHS = (10, 12, 14)
"""Bits of cameras and scanners, which some programs write into the lower ones of 16."""


def is_deep_colour(image: ImageFile.ImageFile) -> bool:
    """Whether an image that was opened and not yet loaded has colours of 16 bits."""
    return image.format == "PNG" and image.mode in ("RGB", "RGBA") and str(image.tile[0].args).endswith(";16B")


def with_used_bits(image: Image.Image, source: bytes | Path) -> Image.Image:
    """A colour PNG of 16 bits, of which Pillow takes the upper 8: those that matter where the picture uses the lower ones."""
    upper = np.asarray(image)
    colours = upper.shape[2] - ("A" in image.mode)
    if _depth(int(upper[..., :colours].max()) << 8) == FULL_DEPTH:
        return image
    with open_image(source, ("PNG",)) as lower_image:
        tile = lower_image.tile[0]
        if not str(tile.args).startswith("RGB"):
            raise Rejection(Reason.TOO_DARK, f"{tile.args}: only the lower bits are used")
        # Read as the other byte order, it gives the lower 8.
        lower_image.tile = [tile._replace(args=str(tile.args).replace(";16B", ";16L"))]
        lower_image.load()
        wide = upper.astype(np.uint32) << 8 | np.asarray(lower_image)
    stretched = upper.copy()
    stretched[..., :colours] = eight_bits(wide[..., :colours])
    made = Image.fromarray(stretched)
    made.info = image.info  # the profile and the orientation
    return made


def _depth(largest: int) -> int:
    """The significant bits of samples in 16."""
    return next((bits for bits in DEPTHS if largest < 1 << bits), FULL_DEPTH)


def eight_bits(samples: NDArray[np.uint32]) -> NDArray[np.uint8]:
    depth = _depth(int(samples.max(initial=0)))
    return (samples >> (depth - 8)).clip(0, 255).astype(np.uint8)
