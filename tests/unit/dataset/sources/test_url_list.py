"""Lists of URLs."""

from io import BytesIO

import pyarrow
import pyarrow.parquet
import pytest

from service.dataset.notes import Note
from service.dataset.sources.url_list import candidates_of
from service.exits import BadData

LIST = "DATA_PREP_URLS=list"


def origins(content: bytes) -> list[tuple[str, str | None]]:
    return [(candidate.origin, candidate.caption) for candidate in candidates_of(content, LIST).candidates]


def test_a_csv_file_gives_urls_and_what_is_known_of_them() -> None:
    content = b'\xef\xbb\xbfURL,text,license,page,other\nhttp://a/1.png,"a cat,\nsitting",CC0,http://a,9\n,lost,,,\nhttp://b/2.png,,,,\n'
    (first, second), notes = candidates_of(content, LIST)
    assert notes == {Note.ROWS_WITHOUT_IMAGE: 1}
    assert (first.origin, first.caption, first.licence, first.page) == (
        "http://a/1.png",
        "a cat,\nsitting",
        "CC0",
        "http://a",
    )
    assert (second.rank, second.origin, second.caption, second.licence) == (1, "http://b/2.png", None, None)


def test_captions_that_look_like_numbers_or_like_nothing_stay_text() -> None:
    assert origins(b"url,caption\nhttp://a,8\nhttp://b,007\nhttp://c,null\n") == [
        ("http://a", "8"),
        ("http://b", "007"),
        ("http://c", "null"),
    ]


def test_a_parquet_file_gives_the_same_as_a_csv_file() -> None:
    buffer = BytesIO()
    table = pyarrow.table({"caption": ["a cat", None], "url": ["http://a/1.png", "http://b/2.png"]})
    pyarrow.parquet.write_table(table, buffer)
    assert origins(buffer.getvalue()) == origins(b"caption,url\na cat,http://a/1.png\n,http://b/2.png\n")


def test_a_column_that_is_there_twice_counts_once() -> None:
    assert origins(b"url,caption,url,text\nhttp://a,mine,http://b,theirs\n") == [("http://a", "mine")]


def test_text_that_a_writer_left_as_bytes_is_text() -> None:
    buffer = BytesIO()
    pyarrow.parquet.write_table(
        pyarrow.table({"url": [b"http://a", None], "caption": ["caf\u00e9".encode(), b"x"]}), buffer
    )
    assert origins(buffer.getvalue()) == [("http://a", "caf\u00e9")]


@pytest.mark.parametrize("content", [b"", b"caption\na cat\n", b"PAR1 but no table", b"a,b\n1,2,3,4\n"])
def test_what_is_no_list_is_named_with_its_place(content: bytes) -> None:
    with pytest.raises(BadData, match="DATA_PREP_URLS=list"):
        candidates_of(content, LIST)


@pytest.mark.parametrize(
    "content",
    [
        b"url;caption\nhttp://a;un caf\xe9\n",
        "url\tcaption\nhttp://a\tun caf\u00e9\n".encode("utf-16"),
        b'{"url": "http://a", "caption": "un caf\\u00e9"}\n',
        "url, caption\nhttp://a, un caf\u00e9\n".encode(),
    ],
)
def test_lists_are_read_like_the_tables_of_folders(content: bytes) -> None:
    assert origins(content) == [("http://a", "un caf\u00e9")]


def test_a_caption_with_a_comma_is_whole_or_its_line_is_named() -> None:
    assert origins(b"url,caption\nhttp://a,a red boat, at sea\n") == [("http://a", "a red boat, at sea")]
    for broken in (b"caption,url\na boat, at sea,http://a\n", b'url,caption\nhttp://a,"a boat\nhttp://b,a dog"\n'):
        with pytest.raises(BadData, match="DATA_PREP_URLS=list, line 2: "):
            candidates_of(broken, LIST)


def test_a_row_without_a_caption_is_an_image_nevertheless_and_a_piece_of_one_is_none() -> None:
    assert origins(b"url,caption\nhttp://a\n") == [("http://a", None)]
    with pytest.raises(BadData, match="line 3: "):
        candidates_of(b"url,caption\nhttp://a,a boat\nat sea\n", LIST)


def test_an_image_that_two_rows_caption_differently_is_counted() -> None:
    content = b"url,caption\nhttp://a,a boat\nhttp://b,a dog\nhttp://a,a ship\nhttp://b,a dog\nhttp://a\n"
    found, notes = candidates_of(content, LIST)
    assert [candidate.caption for candidate in found] == ["a boat", "a dog", "a ship", "a dog", None]
    assert notes == {Note.CAPTIONED_TWICE: 1}


@pytest.mark.parametrize("later", ["http://a", "http://a#top"])
def test_a_caption_that_only_a_later_row_of_an_image_has_is_that_of_the_first_which_alone_is_looked_at(
    later: str,
) -> None:
    found, notes = candidates_of(f"url,caption\nhttp://a\nhttp://b,a dog\n{later},a boat\n".encode(), LIST)
    assert [candidate.caption for candidate in found] == ["a boat", "a dog", "a boat"]
    assert not notes
