"""Bytes of any origin to an upright sRGB picture, or the reason why not."""

import errno
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from service.dataset.candidates import Reason, Rejection

# The formats of images on the web. Each further decoder is one more that hostile bytes can reach.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
ALLOWED_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")
OTHER_MAGIC = (b"II*\0", b"MM\0*", b"8BPS", b"%PDF", b"%!PS", b"\0\0\1\0", b"qoif", b"SIMPLE  =", b"\0\0\0\x0cjP  ")
WHITE = (255, 255, 255)
MOST_PIXELS = 89_478_485
"""A quarter of a gigabyte of RGB, where Pillow begins to warn."""
# What Pillow's decoders raise on damaged files.
DAMAGE = (SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, struct.error, zlib.error)


class Decoded(NamedTuple):
    """An upright RGB picture in sRGB, without metadata; `animated` when it is the first frame of several."""

    image: Image.Image
    animated: bool


@contextmanager
def quiet_decoders() -> Iterator[None]:
    """Silences Pillow's warnings of oddities in files, which are no news to the operator.

    For a whole loop, not for an image: the filters belong to the process, not to a thread.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", category=UserWarning)
        yield


def decode(source: bytes | Path) -> Decoded:
    """The first frame of an image file: upright, in sRGB, alpha laid on white.

    Raises Rejection(not_image, format_not_allowed, truncated or decompression_bomb), and OSError with an errno when a
    local file cannot be read. To be called within `quiet_decoders`.
    """
    try:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
            # Pillow refuses twice as many pixels and only warns of these, by a filter that threads would share.
            if image.width * image.height > MOST_PIXELS:
                raise Rejection(Reason.DECOMPRESSION_BOMB, f"{image.width}x{image.height}")
            # The further frames of a camera's MPO are previews and maps of the same picture.
            animated = image.format != "MPO" and bool(getattr(image, "is_animated", False))
            image.load()
            return Decoded(_to_rgb(_upright(image)), animated)
    except UnidentifiedImageError as error:
        raise Rejection(_unidentified(_head(source))) from error
    except Image.DecompressionBombError as error:
        raise Rejection(Reason.DECOMPRESSION_BOMB, f"more than {2 * MOST_PIXELS} pixels") from error
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # the disk; EINVAL is a damaged header's seek to before the start
            raise
        raise Rejection(Reason.TRUNCATED, _damage(error)) from error
    except DAMAGE as error:
        raise Rejection(Reason.TRUNCATED, _damage(error)) from error


def _damage(error: Exception) -> str:
    """What the decoder says of the file; an object's address in it would differ from run to run."""
    return re.sub(r"<[^>]*>", "the file", str(error))


def _head(source: bytes | Path) -> bytes:
    """The first 16 bytes."""
    if isinstance(source, bytes):
        return source[:16]
    with source.open("rb") as file:
        return file.read(16)


def _unidentified(start: bytes) -> Reason:
    """What a file is that none of the allowed decoders takes, by its first 16 bytes."""
    if start.startswith(ALLOWED_MAGIC) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP"):
        return Reason.TRUNCATED
    if start.startswith(OTHER_MAGIC) or start[4:8] == b"ftyp":  # ftyp: AVIF, HEIC and video
        return Reason.FORMAT_NOT_ALLOWED
    return Reason.NOT_IMAGE


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF orientation says. An EXIF block that cannot be read turns nothing."""
    try:
        return ImageOps.exif_transpose(image)
    except (OSError, AttributeError, *DAMAGE):
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    """RGB in sRGB, with white behind whatever is transparent, and with no metadata left."""
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I"):
        # Pillow would clip 16-bit grey at 255, which turns nearly every picture white.
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        image = image.convert("RGB")
    elif image.mode not in ("RGB", "L", "CMYK"):
        image = image.convert("RGB")
    image = _to_srgb(image, profile)
    if alpha is not None:
        image = Image.composite(image, Image.new("RGB", image.size, WHITE), alpha)
    image.info.clear()
    return image


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """RGB, L or CMYK to RGB, through the embedded ICC profile where there is a usable one."""
    if profile:
        try:
            embedded = ImageCms.ImageCmsProfile(BytesIO(profile))
            converted = ImageCms.profileToProfile(image, embedded, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (OSError, ImageCms.PyCMSError, *DAMAGE):
            converted = None  # a broken profile, or one for other channels than the image has
        if converted is not None:
            return converted
    return image.convert("RGB")
