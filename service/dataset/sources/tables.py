"""Tables of captions as people have them: CSV with any usual delimiter, JSON lines, Parquet. None loses a row in silence."""

import csv
import io
import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet

from service.dataset.sources.text_decoding import text_of
from service.exits import BadData

CAPTION_COLUMNS = ("caption", "text")
DELIMITERS = (",", ";", "\t", "|")
PARQUET_MAGIC = b"PAR1"


class Row(NamedTuple):
    """A row: where it begins in its file, from 1, and its cells by the column's name in lower case."""

    line: int
    cells: Mapping[str, str]


class Table(NamedTuple):
    """`columns` are in lower case; rows have the cells of the columns that were asked for, stripped of blanks."""

    columns: Sequence[str]
    rows: Sequence[Row]


@dataclass(frozen=True)
class Reading:
    """How a table is read: its name in messages, the columns that matter, and what they are.

    `keys`: columns that say what a row is about, of which a table has one. `texts`: columns that may hold a comma; the last
    one of a table takes all that is left of a line. `is_key`: whether a cell names something that there may be: it tells a
    row that lacks cells from a piece of a broken one.
    """

    name: str
    keys: Collection[str]
    texts: Collection[str]
    others: Collection[str]
    is_key: Callable[[str], bool]

    @property
    def wanted(self) -> set[str]:
        return {*self.keys, *self.texts, *self.others}


def read_table(content: bytes, reading: Reading) -> Table:
    """Raises BadData, naming file and line, for a table that cannot be meant as it stands: no text, cells without a column,
    a quote that swallows rows, a value that is no text. A table without any of the keys has no rows."""
    if content.startswith(PARQUET_MAGIC):
        return _from_parquet(content, reading)
    text = text_of(content, reading.name)
    if text.lstrip().startswith("{"):
        return _from_json_lines(text, reading)
    return _from_csv(text, reading)


def _from_csv(text: str, reading: Reading) -> Table:
    for delimiter in DELIMITERS:
        rows = _CsvRows(text, delimiter, reading)
        if set(rows.columns) & set(reading.keys):
            return Table(rows.columns, [rows.row_of(*entry) for entry in rows if any(map(str.strip, entry[1]))])
    return Table(_CsvRows(text, DELIMITERS[0], reading).columns, [])


class _CsvRows:
    """The rows of a CSV text after its header, as (line, cells, the text that they stand in)."""

    def __init__(self, text: str, delimiter: str, reading: Reading) -> None:
        self._delimiter = delimiter
        self._reading = reading
        self._passed: list[str] = []
        # Strict: what stands behind a closing quote would else be taken for a part of the caption.
        self._rows = csv.reader(self._lines(text), delimiter=delimiter, skipinitialspace=True, strict=True)
        self.columns = self._header()
        self._key = next((index for index, column in enumerate(self.columns) if column in reading.keys), 0)

    def _lines(self, text: str) -> Iterator[str]:
        for line in io.StringIO(text, newline=""):
            self._passed.append(line)
            yield line

    def _header(self) -> list[str]:
        """Empty where there is none, or where this is not the delimiter."""
        try:
            cells = next((cells for _, cells, _ in self if cells), [])
        except BadData:
            return []
        return [cell.strip().lower() for cell in cells]

    def __iter__(self) -> Iterator[tuple[int, list[str], str]]:
        while True:
            line = self._rows.line_num + 1
            self._passed.clear()
            try:
                cells = next(self._rows)
            except StopIteration:
                return
            except csv.Error as error:
                raise _refused(self._reading, line, f"{error}; a quote in a cell is written twice") from error
            yield line, cells, "".join(self._passed)

    def row_of(self, line: int, cells: Sequence[str], text: str) -> Row:
        columns = self.columns
        if len(cells) > len(columns):
            cells = self._fewer(line, cells, text)
        self._check_not_broken(line, cells)
        found: dict[str, str] = {}  # of two columns with the same name the first counts
        for column, cell in zip(columns, cells, strict=False):
            if column in self._reading.wanted:
                found.setdefault(column, cell.strip())
        return Row(line, found)

    def _fewer(self, line: int, cells: Sequence[str], text: str) -> Sequence[str]:
        """As many cells as there are columns: without empty ones at the end, or with the rest of the line as the last text."""
        count = len(self.columns)
        if not any(cell.strip() for cell in cells[count:]):
            return cells[:count]
        plain = text.rstrip("\r\n").split(self._delimiter)
        if self.columns[-1] in self._reading.texts and [cell.strip() for cell in plain] == [c.strip() for c in cells]:
            return [*cells[: count - 1], self._delimiter.join(plain[count - 1 :])]
        raise _refused(
            self._reading,
            line,
            f"{len(cells)} cells under {count} columns; put a text with {self._delimiter!r} in quotes",
        )

    def _check_not_broken(self, line: int, cells: Sequence[str]) -> None:
        columns, key, is_key = self.columns, self._key, self._reading.is_key
        if len(cells) < len(columns) and not (key < len(cells) and is_key(cells[key].strip())):
            raise _refused(
                self._reading,
                line,
                f"{len(cells)} cells under {len(columns)} columns; put a text of several lines in quotes",
            )
        for inner in (inner for cell in cells for inner in cell.splitlines()[1:]):
            parts = [part.strip() for part in inner.split(self._delimiter)]
            if len(parts) > 1 and key < len(parts) and is_key(parts[key]):
                raise _refused(self._reading, line, f"a quote that is not closed swallows the row of {parts[key]}")


def _from_json_lines(text: str, reading: Reading) -> Table:
    columns: dict[str, None] = {}
    rows = []
    for number, line in enumerate(io.StringIO(text), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise _refused(reading, number, f"no JSON: {error}") from error
        if not isinstance(entry, dict):
            raise _refused(reading, number, "no JSON object")
        columns |= dict.fromkeys(name.lower() for name in entry)
        rows.append(Row(number, _cells(entry, number, reading)))
    return Table(list(columns), rows if set(columns) & set(reading.keys) else [])


def _from_parquet(content: bytes, reading: Reading) -> Table:
    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(content))
        names = file.schema_arrow.names
        # The others may be the images themselves. Two columns may have the same name, of which the first counts.
        table = file.read(columns=[name for name in names if name.lower() in reading.wanted])
        columns = {
            name.lower(): column.to_pylist()
            for name, column in reversed([*zip(table.column_names, table.columns, strict=True)])
        }
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise BadData(f"{reading.name} is damaged: {str(error).splitlines()[0]}") from error
    rows = []
    if set(columns) & set(reading.keys):
        for number in range(table.num_rows):
            entry = {name: values[number] for name, values in columns.items()}
            rows.append(Row(number + 1, _cells(entry, number + 1, reading)))
    return Table([name.lower() for name in names], rows)


def _cells(entry: Mapping[str, Any], line: int, reading: Reading) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in entry.items():
        if (column := name.lower()) in reading.wanted:
            found.setdefault(column, _cell(value, column, line, reading))
    return found


def _cell(value: Any, column: str, line: int, reading: Reading) -> str:
    """A value as text; a Parquet file may have bytes, where a writer did not say that they are text."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bytes):
        try:
            return value.decode().strip()
        except UnicodeDecodeError as error:
            raise _refused(reading, line, f"{column} is no UTF-8 at byte {error.start}") from error
    if not isinstance(value, str | int | float):
        raise _refused(reading, line, f"{column} is no text but a {type(value).__name__}")
    text = str(value).strip()
    if any("\ud800" <= letter <= "\udfff" or letter == "\0" for letter in text):
        raise _refused(reading, line, f"{column} holds what is no letter")
    return text


def _refused(reading: Reading, line: int, why: str) -> BadData:
    return BadData(f"{reading.name}, line {line}: {why}")
