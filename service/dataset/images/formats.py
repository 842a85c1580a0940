"""Which formats are opened, and what a file is that is in none of them."""

from collections.abc import Sequence
from functools import cache
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageFile

from service.dataset.candidates import Reason, Rejection

# The formats of images on the web. Each further decoder is one more that hostile bytes can reach.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
EXTRA_FORMATS = {"heic": "HEIF", "avif": "AVIF"}
"""By the words of DATA_PREP_EXTRA_FORMATS."""
ALLOWED_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")
OTHER_MAGIC = {
    b"II*\0": "TIFF", b"MM\0*": "TIFF", b"8BPS": "Photoshop", b"%PDF": "PDF", b"%!PS": "PostScript", b"\0\0\1\0": "icon",
    b"qoif": "QOI", b"SIMPLE  =": "FITS", b"\0\0\0\x0cjP  ": "JPEG 2000", b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\0\x0cJXL ": "JPEG XL", b"\xff\x0a": "JPEG XL",
}  # fmt: skip
AVIF_BRANDS = {b"avif", b"avis"}
HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1", b"heif"}


@cache
def formats_with(extra: tuple[str, ...]) -> tuple[str, ...]:
    """Pillow's names of the formats that are opened; `extra` are words of DATA_PREP_EXTRA_FORMATS, whose decoders are there."""
    if "heic" in extra:
        from pi_heif import register_heif_opener  # installed by who wants it

        register_heif_opener()
    return (*FORMATS, *(EXTRA_FORMATS[word] for word in extra))


def open_image(source: bytes | Path, formats: tuple[str, ...]) -> ImageFile.ImageFile:
    return Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=formats)


def unidentified(source: bytes | Path, formats: Sequence[str]) -> Rejection:
    """What a file is that none of the allowed decoders takes, by its first bytes."""
    start = _head(source)
    if start.startswith(ALLOWED_MAGIC) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP"):
        return Rejection(Reason.TRUNCATED)
    for magic, name in OTHER_MAGIC.items():
        if start.startswith(magic):
            return Rejection(Reason.FORMAT_NOT_ALLOWED, name)
    if start[4:8] == b"ftyp":
        word = "avif" if start[8:12] in AVIF_BRANDS else "heic" if start[8:12] in HEIC_BRANDS else ""
        if not word:
            return Rejection(Reason.FORMAT_NOT_ALLOWED, "video")
        if EXTRA_FORMATS[word] in formats:
            return Rejection(Reason.TRUNCATED)
        return Rejection(Reason.FORMAT_NOT_ALLOWED, f"{word.upper()}; DATA_PREP_EXTRA_FORMATS={word} opens it")
    return Rejection(Reason.NOT_IMAGE)


def _head(source: bytes | Path) -> bytes:
    """The first 16 bytes."""
    if isinstance(source, bytes):
        return source[:16]
    with source.open("rb") as file:
        return file.read(16)


def is_lossless(image: Image.Image, source: bytes | Path) -> bool:
    """Whether the file kept every pixel as it was drawn, as far as one can see."""
    if image.format == "WEBP":
        return _is_lossless_webp(source)
    # A palette that is full was most probably not large enough.
    return image.format in ("PNG", "BMP", "GIF") and not (image.mode == "P" and image.getcolors(255) is None)


def _is_lossless_webp(source: bytes | Path) -> bool:
    """Whether the first picture in the chunks of the file is a lossless one."""
    with BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        file.seek(12)
        while len(header := file.read(8)) == 8:
            kind, size = header[:4], int.from_bytes(header[4:], "little")
            if kind in (b"VP8 ", b"VP8L"):
                return kind == b"VP8L"
            # The frame of an animation holds its picture behind 16 bytes of its own.
            file.seek(16 if kind == b"ANMF" else size + size % 2, 1)
    return False
