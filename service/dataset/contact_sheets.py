"""Which images the report shows, and what it says below each."""

from collections.abc import Sequence
from io import BytesIO

from PIL import Image

from service.dataset.candidates import Record
from service.dataset.imagefolder import Row
from service.dataset.preparation import Preparation
from service.dataset.report import Tile, spread
from service.dataset.screening import png_of, thumbnail

SHOWN = 120
"""Images on each sheet; spread over all of them, so that the page stays small."""


def accepted_tiles(rows: Sequence[Row], preparation: Preparation) -> list[Tile]:
    """Images of the data set with their captions."""
    return [
        Tile(small(preparation.image(row.record)), row.caption, row.record.candidate.origin, row.split)
        for row in spread(rows, SHOWN)
    ]


def rejected_tiles(records: Sequence[Record], preparation: Preparation) -> list[Tile]:
    """Images that were decoded and left out, with their reasons."""
    decoded = [record for record in records if record.reason is not None and record.features is not None]
    tiles = []
    for record in spread(decoded, SHOWN):
        png = preparation.picture(record)
        if png is not None:
            why = ": ".join(part for part in (str(record.reason), record.detail) if part)
            tiles.append(Tile(small(png), why, record.candidate.origin))
    return tiles


def small(png: bytes) -> bytes:
    with Image.open(BytesIO(png)) as image:
        return png_of(thumbnail(image.convert("RGB")))
