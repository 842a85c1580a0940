"""Pictures inside of a page, as data: URIs."""

import base64
import io

from PIL import Image

LARGEST_PNG = 4_000_000


def picture_uri(image: Image.Image) -> str:
    """The picture; PNG, or JPEG where photographs would make the page too heavy to open."""
    png = _png(image)
    return data_uri("image/png", png) if len(png) <= LARGEST_PNG else jpeg_uri(image)


def png_uri(image: Image.Image) -> str:
    """The picture, pixel for pixel, without the texts of the file that it was read from."""
    return data_uri("image/png", _png(image))


def jpeg_uri(image: Image.Image) -> str:
    """The picture as a JPEG of high quality."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=90, subsampling=0)
    return data_uri("image/jpeg", buffer.getvalue())


def data_uri(media_type: str, content: bytes) -> str:
    """The content as a URI that holds it."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
