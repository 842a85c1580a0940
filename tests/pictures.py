"""Pictures for tests: small, all different, and in any format."""

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
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


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def deep_png(samples: NDArray[np.uint16]) -> bytes:
    """A PNG of 16 bits, of one to four channels: Pillow writes none in colour."""
    height, width, channels = (*samples.shape, 1)[:3]
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def heic(image: Image.Image, **options: Any) -> bytes:
    """What a phone writes. The library that encodes opens nothing here: that is for the decoder of the service."""
    from pillow_heif import from_pillow

    buffer = BytesIO()
    from_pillow(image).save(buffer, **options)
    return buffer.getvalue()
