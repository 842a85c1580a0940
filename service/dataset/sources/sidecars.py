"""Captions that lie beside images: in a text file of the same name, or in the table of a folder."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath

import structlog

from service.dataset.candidates import Candidate
from service.storage.parallel import for_each

METADATA = "metadata.csv"
CAPTION_COLUMNS = ("caption", "text")

log = structlog.get_logger(__name__)


def captioned(names: Sequence[str], read: Callable[[str], bytes]) -> list[Candidate]:
    """Candidates for the files `names`, in their order, with the captions of the sidecars among them.

    A sidecar is a metadata.csv, or a .txt file with the name of an image beside it; it is no candidate itself. Of both
    the .txt file is the nearer one.
    """
    tables = [name for name in names if PurePosixPath(name).name == METADATA]
    images = {name for name in names if not name.endswith(".txt")} - set(tables)
    texts = {str(PurePosixPath(name).with_suffix("")): name for name in names if name.endswith(".txt")}
    texts = {stem: texts[stem] for name in images if (stem := str(PurePosixPath(name).with_suffix(""))) in texts}
    sidecars = {*tables, *texts.values()}
    contents: dict[str, bytes] = {}
    # At once, because a bucket may hold a text beside each of very many images.
    for_each(lambda name: contents.update({name: read(name)}), sorted(sidecars), "reading captions")
    captions: dict[str, str] = {}
    for table in tables:
        captions |= _captions_of(contents[table], PurePosixPath(table).parent)
    candidates: list[Candidate] = []
    for name in names:
        if name in sidecars:
            continue
        text = texts.get(str(PurePosixPath(name).with_suffix("")))
        caption = contents[text].decode("utf-8-sig", errors="replace").strip() if text else captions.get(name)
        candidates.append(Candidate(len(candidates), name, caption=caption or None))
    return candidates


def _captions_of(table: bytes, folder: PurePosixPath) -> Mapping[str, str]:
    """Name of a file → its caption, from a metadata.csv in `folder`; empty, with a warning, when it has no such columns."""
    rows = csv.DictReader(io.StringIO(table.decode("utf-8-sig", errors="replace"), newline=""))
    try:
        columns = rows.fieldnames or []
        column = next((name for name in CAPTION_COLUMNS if name in columns), None)
        if column is None or "file_name" not in columns:
            log.warning("metadata.csv has no captions", folder=str(folder), columns=list(columns))
            return {}
        return {str(folder / row["file_name"]): (row[column] or "").strip() for row in rows if row["file_name"]}
    except csv.Error as error:
        log.warning("metadata.csv cannot be read", folder=str(folder), error=str(error))
        return {}
