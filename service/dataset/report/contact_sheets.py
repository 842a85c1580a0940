"""Which images the report shows, and what it says below each."""

from collections.abc import Sequence
from io import BytesIO

from PIL import Image

from service.dataset.candidates import Record
from service.dataset.imagefolder import DatasetRow
from service.dataset.images.screening import png_of, thumbnail
from service.dataset.preparation import Preparation
from service.dataset.report.page import Tile
from service.dataset.report.samples import SHOWN, of_each_reason, spread


def accepted_tiles(rows: Sequence[DatasetRow], preparation: Preparation) -> list[Tile]:
    """Images of the data set with their captions."""
    return [
        Tile(_small(preparation.image(row.record)), row.caption, row.record.candidate.origin, row.split)
        for row in spread(rows, SHOWN)
    ]


def rejected_tiles(records: Sequence[Record], preparation: Preparation) -> list[Tile]:
    """Images that were decoded and left out, with their reasons."""
    tiles = []
    for record in of_each_reason(records, seen=True):
        png = preparation.picture(record)
        if png is not None:
            tiles.append(Tile(_small(png), _why(record), record.candidate.origin))
    return tiles


def _why(record: Record) -> str:
    """The reason, with the figure that decided or the image that was kept instead."""
    because = f"{record.kept} stayed" if record.kept else record.detail
    return f"{record.reason}: {because}" if because else str(record.reason)


def _small(png: bytes) -> bytes:
    with Image.open(BytesIO(png)) as image:
        return png_of(thumbnail(image.convert("RGB")))
