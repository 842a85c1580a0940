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
from service.dataset.images.depth import eight_bits, is_deep_colour, with_used_bits
from service.dataset.images.formats import FORMATS, is_lossless, open_image, unidentified

WHITE = (255, 255, 255)
MOST_PIXELS = 89_478_485
"""A quarter of a gigabyte of RGB, where Pillow begins to warn."""
# What Pillow's decoders raise on damaged files; RuntimeError is that of AVIF.
DAMAGE = (
    SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, RuntimeError, struct.error, zlib.error
)  # fmt: skip


class Decoded(NamedTuple):
    """An upright RGB picture in sRGB, without metadata; `animated` when it is the first frame of several.

    `lossless`: its file kept every pixel as it was drawn, as far as one can see.
    """

    image: Image.Image
    animated: bool
    lossless: bool


@contextmanager
def quiet_decoders() -> Iterator[None]:
    """Silences Pillow's warnings of oddities in files, which are no news to the operator.

    For a whole loop, not for an image: the filters belong to the process, not to a thread.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", category=UserWarning)
        yield


def decode(source: bytes | Path, formats: tuple[str, ...] = FORMATS) -> Decoded:
    """The first frame of an image file in one of the `formats`: upright, in sRGB, alpha laid on white.

    Raises Rejection(not_image, format_not_allowed, truncated, decompression_bomb or too_dark), and OSError with an errno
    when a local file cannot be read. To be called within `quiet_decoders`.
    """
    try:
        with open_image(source, formats) as image:
            # Pillow refuses twice as many pixels and only warns of these, by a filter that threads would share.
            if image.width * image.height > MOST_PIXELS:
                raise Rejection(Reason.DECOMPRESSION_BOMB, f"{image.width}x{image.height}")
            # The further frames of a camera's MPO or HEIC are previews, maps or a burst of the same picture.
            animated = image.format not in ("MPO", "HEIF") and bool(getattr(image, "is_animated", False))
            deep = is_deep_colour(image)
            image.load()
            whole = with_used_bits(image, source) if deep else image
            return Decoded(_to_rgb(_upright(whole)), animated, is_lossless(image, source))
    except UnidentifiedImageError as error:
        raise unidentified(source, formats) from error
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
        image = Image.fromarray(eight_bits(np.asarray(image).astype(np.uint32)))
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
