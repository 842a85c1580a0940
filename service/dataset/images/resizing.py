"""The shape in which an image enters the data set."""

from collections.abc import Mapping
from typing import Literal

from PIL import Image

Square = Literal["keep", "crop", "pad"]
WHITE = (255, 255, 255)
RESAMPLING: Mapping[str, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
}


def shaped(image: Image.Image, *, square: Square, side: int | None, enlarge: str, shrink: str) -> Image.Image:
    """An RGB image made square or not, then resized to `side` pixels.

    `side` is the shorter side's, or with `pad` the longer one's; None keeps the size. `enlarge` and `shrink` name the
    resampling for either direction, or `never`.
    """
    image = squared(image, square)
    if side is None:
        return image
    factor = side / (max(image.size) if square == "pad" else min(image.size))
    resampling = enlarge if factor > 1 else shrink
    if factor == 1 or resampling == "never":
        return image
    width, height = (max(1, round(length * factor)) for length in image.size)
    return image.resize((width, height), RESAMPLING[resampling])


def squared(image: Image.Image, square: Square) -> Image.Image:
    """The image itself, its largest centred square, or the smallest square around it with white margins."""
    width, height = image.size
    if square == "keep" or width == height:
        return image
    if square == "crop":
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        return image.crop((left, top, left + side, top + side))
    side = max(width, height)
    padded = Image.new("RGB", (side, side), WHITE)
    padded.paste(image, ((side - width) // 2, (side - height) // 2))
    return padded
