"""Tables as people have them: each is read as it was meant, or refused with its line."""

import json
from io import BytesIO

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.dataset.sources.tables import CAPTION_COLUMNS, Reading, read_table
from service.exits import BadData

FILES = ["a.png", "b.png", "c.png"]


def reading() -> Reading:
    return Reading(
        "ours/metadata.csv", keys=("file_name",), texts=CAPTION_COLUMNS, others=("page",), is_key=FILES.__contains__
    )


def rows_of(content: str | bytes) -> list[dict[str, str]]:
    table = read_table(content.encode() if isinstance(content, str) else content, reading())
    return [dict(row.cells) for row in table.rows]


def captions_of(content: str | bytes) -> dict[str, str]:
    return {cells["file_name"]: cells["caption"] for cells in rows_of(content)}


@pytest.mark.parametrize(
    ("line", "caption"),
    [
        ("a.png,a red boat, at sea", "a red boat, at sea"),
        ("a.png,a red boat,at sea,1,000 waves", "a red boat,at sea,1,000 waves"),
        ('a.png,a "red" boat, at sea', 'a "red" boat, at sea'),
        ('a.png, "a red boat, at sea"', "a red boat, at sea"),
        ("a.png,a red boat,,", "a red boat"),
        ('a.png,"a red boat",', "a red boat"),
    ],
)
def test_a_caption_that_comes_last_takes_the_rest_of_its_line(line: str, caption: str) -> None:
    assert captions_of(f"file_name,caption\n{line}\nb.png,a dog\n") == {"a.png": caption, "b.png": "a dog"}
    assert captions_of(f"file_name;caption\n{line}\nb.png;a dog\n".replace(",", ";")) == {
        "a.png": caption.replace(",", ";"),
        "b.png": "a dog",
    }


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        (["caption,file_name", "a boat,at sea,a.png"], 2),
        (["file_name,caption,page", "b.png,a dog,", "a.png,a boat,at sea,http://x"], 3),
        (["file_name,caption", 'a.png,"a boat", at sea'], 2),
        (["file_name,caption", 'a.png,"a boat" at sea'], 2),
        (["file_name,caption", "b.png,a dog", 'a.png,"a boat', "c.png,a cat"], 3),
        (["file_name,caption", 'a.png,"a boat', "b.png,a dog", 'c.png,a cat"'], 2),
        (["file_name,caption", 'a.png,"a boat', 'b.png,"a dog"', "c.png,a cat"], 2),
        (["file_name,caption", "a.png,a boat", "at sea"], 3),
        (["file_name,caption,page", "a.png,a boat", "at sea,http://x"], 3),
        (['{"file_name": "a.png", "caption": "a boat"}', '{"file_name": "b.png", "caption": "a d'], 2),
        (['{"file_name": "a.png", "caption": ["a boat", "at sea"]}'], 1),
        (['{"file_name": "a.png", "caption": {"en": "a boat"}}'], 1),
        (['{"file_name": "a.png", "caption": "\\ud800"}'], 1),
        (['{"file_name": "a.png"}', "null"], 2),
    ],
)
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_what_cannot_be_meant_is_refused_with_its_line(rows: list[str], line: int, ending: str) -> None:
    if rows[0].startswith("{") and ending == "\r":
        return  # a lone carriage return is a blank to JSON
    with pytest.raises(BadData, match=f"^ours/metadata.csv, line {line}: "):
        rows_of(ending.join(rows) + ending)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("blank", ["", " "])
def test_every_usual_delimiter_and_blanks_behind_it_are_understood(delimiter: str, blank: str) -> None:
    rows = [["File_Name", "Page", "Caption"], ["a.png", "", "a boat"], ["b.png", "x", '"a dog"']]
    text = "".join((delimiter + blank).join(row) + "\n" for row in rows)
    assert captions_of(text) == {"a.png": "a boat", "b.png": "a dog"}


def test_headers_may_be_in_quotes_and_cells_may_hold_lines() -> None:
    assert captions_of('"file_name";"caption"\n"a.png";"a ""red"" boat\nat sea; calm"\n') == {
        "a.png": 'a "red" boat\nat sea; calm'
    }


def test_a_row_without_a_caption_is_one() -> None:
    assert rows_of("file_name,caption\na.png\n\nb.png,a dog\n") == [
        {"file_name": "a.png"},
        {"file_name": "b.png", "caption": "a dog"},
    ]


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=12).map(str.strip)


@given(st.lists(texts, min_size=3, max_size=3), st.sampled_from([",", ";", "\t", "|"]))
def test_what_a_csv_writer_writes_is_read_back(captions: list[str], delimiter: str) -> None:
    import csv
    import io

    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=delimiter)
    writer.writerows([["file_name", "caption"], *zip(FILES, captions, strict=True)])
    assert captions_of(buffer.getvalue()) == dict(zip(FILES, captions, strict=True))


@given(st.lists(texts, min_size=3, max_size=3))
def test_parquet_and_json_lines_say_the_same(captions: list[str]) -> None:
    buffer = BytesIO()
    table = pyarrow.table({"caption": captions, "file_name": FILES, "image": [b"\xff\0"] * 3})
    pyarrow.parquet.write_table(table, buffer)
    lines = "".join(json.dumps({"caption": c, "file_name": f}) + "\n" for c, f in zip(captions, FILES, strict=True))
    assert captions_of(buffer.getvalue()) == captions_of(lines) == dict(zip(FILES, captions, strict=True))


def test_bytes_in_a_parquet_file_that_are_no_text_are_refused_with_their_row() -> None:
    buffer = BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"file_name": ["a.png", "b.png"], "caption": [b"a", b"caf\xe9"]}), buffer)
    with pytest.raises(BadData, match="line 2: caption is no UTF-8 at byte 3"):
        rows_of(buffer.getvalue())


def test_a_damaged_parquet_file_is_named() -> None:
    with pytest.raises(BadData, match=r"^ours/metadata.csv is damaged"):
        rows_of(b"PAR1 but no table")


@pytest.mark.parametrize("content", ["", "name,words\na,b,c\n", '"a"b"\n', '{"name": "a"}\n'])
def test_a_table_without_our_columns_has_no_rows(content: str) -> None:
    assert rows_of(content) == []
