"""A list of URLs in a CSV or Parquet file, as data sets of the web are passed around."""

import hashlib
from pathlib import Path

import pyarrow
import pyarrow.csv
import pyarrow.parquet

from service.artifacts.disk import disk_errors
from service.artifacts.stores import open_store
from service.dataset.candidates import Candidate
from service.exits import BadConfiguration, BadData, MissingInput

COLUMNS = ("url", "caption", "page", "licence")
SYNONYMS = {"text": "caption", "license": "licence"}
PARQUET_MAGIC = b"PAR1"


def read_list(place: str) -> bytes:
    """The file of the list, local or s3://; raises MissingInput, naming the setting, when it is not there."""
    if place.startswith("s3://"):
        folder, _, name = place.rpartition("/")
        if folder in ("s3:", "s3:/") or not name:
            raise BadConfiguration(f"DATA_PREP_URLS={place} names no file; write s3://bucket/path/list.csv")
        return open_store(folder).get(name)
    file = Path(place).expanduser()
    with disk_errors(file, "DATA_PREP_URLS"):
        if not file.is_file():
            raise MissingInput(f"DATA_PREP_URLS={place} is a file that does not exist")
        return file.read_bytes()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def candidates_of(content: bytes, place: str) -> list[Candidate]:
    """A candidate for each row with a URL, in the order of the file; `place` is for messages.

    Raises BadData for a file that is neither CSV nor Parquet, or that has no column `url`.
    """
    try:
        table = table_of(content)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise BadData(f"DATA_PREP_URLS={place} is no CSV or Parquet file: {str(error).splitlines()[0]}") from error
    names = {SYNONYMS.get(name.lower(), name.lower()): name for name in table.column_names}
    if "url" not in names:
        raise BadData(f"DATA_PREP_URLS={place} has no column `url`; it has {', '.join(table.column_names) or 'none'}")
    values = {column: texts(table.column(names[column])) for column in COLUMNS if column in names}
    candidates: list[Candidate] = []
    for row, url in enumerate(values.pop("url")):
        if url:
            facts = {column: cells[row] or None for column, cells in values.items()}
            candidates.append(Candidate(len(candidates), url, **facts))
    return candidates


def table_of(content: bytes) -> pyarrow.Table:
    if content.startswith(PARQUET_MAGIC):
        return pyarrow.parquet.read_table(pyarrow.BufferReader(content))
    # A cell may hold line breaks, as captions do; all columns are text, whatever they look like.
    parsing = pyarrow.csv.ParseOptions(newlines_in_values=True)
    header = pyarrow.csv.read_csv(pyarrow.BufferReader(content), parse_options=parsing).schema.names
    types = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(header, pyarrow.string()))
    return pyarrow.csv.read_csv(pyarrow.BufferReader(content), parse_options=parsing, convert_options=types)


def texts(column: pyarrow.ChunkedArray) -> list[str]:
    return [str(value).strip() if value is not None else "" for value in column.to_pylist()]
