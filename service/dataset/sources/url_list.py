"""A list of URLs in a CSV or Parquet file, as data sets of the web are passed around."""

import hashlib
from pathlib import Path

import pyarrow
import pyarrow.csv
import pyarrow.parquet

from service.dataset.candidates import Candidate
from service.exits import BadConfiguration, BadData, MissingInput
from service.storage.disk import disk_errors
from service.storage.interface import NotFound
from service.storage.opening import open_store

COLUMNS = ("url", "caption", "page", "licence")
SYNONYMS = {"text": "caption", "license": "licence"}
PARQUET_MAGIC = b"PAR1"


def read_list(place: str) -> bytes:
    """The file of the list, local or s3://; raises MissingInput, naming the setting, when it is not there."""
    if place.startswith("s3://"):
        folder, _, name = place.rpartition("/")
        if folder in ("s3:", "s3:/") or not name:
            raise BadConfiguration(f"DATA_PREP_URLS={place} names no file; write s3://bucket/path/list.csv")
        try:
            return open_store(folder).get(name)
        except NotFound as error:
            raise MissingInput(f"DATA_PREP_URLS={place} is an object that does not exist") from error
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
        table = _table_of(content)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise BadData(f"DATA_PREP_URLS={place} is no CSV or Parquet file: {str(error).splitlines()[0]}") from error
    numbers: dict[str, int] = {}  # two columns may have the same name; of those that mean the same, the first counts
    for number, name in enumerate(table.column_names):
        numbers.setdefault(SYNONYMS.get(name.lower(), name.lower()), number)
    if "url" not in numbers:
        raise BadData(f"DATA_PREP_URLS={place} has no column `url`; it has {', '.join(table.column_names) or 'none'}")
    values = {column: _texts(table.column(numbers[column])) for column in COLUMNS if column in numbers}
    candidates: list[Candidate] = []
    for row, url in enumerate(values.pop("url")):
        if url:
            facts = {column: cells[row] or None for column, cells in values.items()}
            candidates.append(Candidate(len(candidates), url, **facts))
    return candidates


def _table_of(content: bytes) -> pyarrow.Table:
    if content.startswith(PARQUET_MAGIC):
        return pyarrow.parquet.read_table(pyarrow.BufferReader(content))
    # A cell may hold line breaks, as captions do; all columns are text, whatever they look like.
    parsing = pyarrow.csv.ParseOptions(newlines_in_values=True)
    header = pyarrow.csv.read_csv(pyarrow.BufferReader(content), parse_options=parsing).schema.names
    types = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(header, pyarrow.string()))
    return pyarrow.csv.read_csv(pyarrow.BufferReader(content), parse_options=parsing, convert_options=types)


def _texts(column: pyarrow.ChunkedArray) -> list[str]:
    return [_text_of(value).strip() for value in column.to_pylist()]


def _text_of(value: object) -> str:
    """A cell of a Parquet file may be bytes, where a writer did not say that they are text."""
    if value is None:
        return ""
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)
