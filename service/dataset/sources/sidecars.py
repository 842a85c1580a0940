"""Captions that lie beside images: in a text file of the same name, or in the table of a folder."""

import posixpath
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import structlog

from service.dataset.candidates import Candidate
from service.dataset.notes import Note
from service.dataset.sources.interface import Captioned
from service.dataset.sources.names import Names, folded, without_suffix
from service.dataset.sources.tables import CAPTION_COLUMNS, Reading, read_table
from service.dataset.sources.text_decoding import texts_of
from service.storage.parallel import for_each

TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
TEXTS = (".txt", ".caption")
FILE_COLUMNS = ("file_name", "filename")
LIKE_CAPTIONS = (
    *TEXTS,
    ".captions",
    ".cap",
    ".tags",
    ".csv",
    ".tsv",
    ".json",
    ".jsonl",
    ".ndjson",
    ".parquet",
    ".xlsx",
)
"""Endings of what is probably about images. One that is not read is warned about."""
EXAMPLES = 5

log = structlog.get_logger(__name__)


def captioned(names: Sequence[str], read: Callable[[str], bytes], place: str) -> Captioned:
    """Candidates for the files `names`, in their order, with the captions of the sidecars among them.

    A sidecar is a metadata.csv, .jsonl or .parquet, or a .txt or .caption file with the name of an image beside it, with or
    without the image's own ending; it is no candidate itself. A text file is nearer than a table, and the table of the
    image's own folder nearer than one above. `place` is for messages. Raises BadData for a sidecar that cannot be read as
    it was meant.
    """
    tables = [name for name in names if folded(posixpath.basename(name)) in TABLES]
    beside, texts = _beside_images([name for name in names if name not in set(tables)])
    images = [name for name in names if name not in beside and name not in set(tables)]
    contents: dict[str, bytes] = {}
    # At once, because a bucket may hold a text beside each of very many images.
    for_each(lambda name: contents.update({name: read(name)}), sorted({*tables, *texts.values()}), "reading captions")
    decoded = texts_of({f"{place}/{name}": contents[name] for name in texts.values()})
    notes: Counter[Note] = Counter()
    captions, without_captions = _from_tables(
        {name: contents[name] for name in _nearest_last(tables)}, images, place, notes
    )
    captions |= {image: text for image, name in texts.items() if (text := decoded[f"{place}/{name}"].strip())}
    unread = [name for name in names if folded(name).endswith(LIKE_CAPTIONS) and name not in contents]
    _note_unread([*unread, *without_captions], notes)
    candidates = [Candidate(rank, name, caption=captions.get(name)) for rank, name in enumerate(images)]
    return Captioned(candidates, notes)


def _beside_images(names: Sequence[str]) -> tuple[set[str], dict[str, str]]:
    """The files that lie beside an image of their name, and of those for each captioned image the text file to read."""
    images = [name for name in names if not folded(name).endswith(LIKE_CAPTIONS)]
    by_name, by_stem = Names(images), Names(images, without_suffix)
    beside: set[str] = set()
    nearest: dict[str, tuple[bool, int, str]] = {}
    for name in names:
        if folded(name).endswith(LIKE_CAPTIONS):
            whole = by_name.find(without_suffix(name))  # b.png.txt
            found = whole or by_stem.find(without_suffix(name))
            if not found:
                continue
            beside.add(name)
            suffix = folded(posixpath.splitext(name)[1])
            for image in found if suffix in TEXTS else ():
                rank = (not whole, TEXTS.index(suffix), name)
                nearest[image] = min(nearest.get(image, rank), rank)
    return beside, {image: name for image, (_, _, name) in nearest.items()}


def _nearest_last(tables: Sequence[str]) -> list[str]:
    return sorted(tables, key=lambda name: (name.count("/"), TABLES.index(folded(posixpath.basename(name))), name))


def _from_tables(
    tables: Mapping[str, bytes], images: Sequence[str], place: str, notes: Counter[Note]
) -> tuple[dict[str, str], list[str]]:
    """Captions by image, of tables of which the nearest to the images is the last; and the tables without captions."""
    by_name = Names(images)
    captions: dict[str, str] = {}
    of_folder: dict[tuple[str, str], str] = {}
    without_captions = []
    for table, content in tables.items():
        folder = posixpath.dirname(table)
        reading = Reading(
            f"{place}/{table}",
            keys=FILE_COLUMNS,
            texts=CAPTION_COLUMNS,
            others=(),
            is_key=lambda cell, folder=folder: bool(cell) and by_name.one(cell, folder) is not None,  # type: ignore[misc]
        )
        columns, rows = read_table(content, reading)
        file_column = next((column for column in columns if column in FILE_COLUMNS), None)
        caption_column = next((column for column in CAPTION_COLUMNS if column in columns), None)
        if file_column is None or caption_column is None:
            without_captions.append(table)
            continue
        for row in rows:
            image = by_name.one(row.cells.get(file_column, ""), folder)
            caption = row.cells.get(caption_column, "")
            if image is None:
                notes[Note.ROWS_WITHOUT_IMAGE] += 1
                log.debug("row names no image", table=table, line=row.line)
            elif caption and of_folder.setdefault((folder, image), caption) != caption:
                notes[Note.CAPTIONED_TWICE] += 1
                log.debug("image is captioned twice", image=image, table=table, line=row.line)
            elif caption:
                captions[image] = caption
    return captions, without_captions


def _note_unread(names: Sequence[str], notes: Counter[Note]) -> None:
    if names:
        notes[Note.UNREAD_CAPTION_FILES] = len(names)
    if notes:
        log.warning(
            "captions were not read", **{str(note): count for note, count in notes.items()}, files=names[:EXAMPLES]
        )
