"""Pictures for tests: small, all different, and in any format."""

from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image


def sprite(seed: int, size: tuple[int, int] = (40, 36)) -> Image.Image:
    """A coarse pattern at random, unlike that of any other seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format=file_format, **options)
    return buffer.getvalue()


def png(seed: int, size: tuple[int, int] = (40, 36)) -> bytes:
    return encoded(sprite(seed, size), "PNG")
