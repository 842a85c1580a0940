"""Texts as other systems write them."""

import codecs
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.dataset.sources.text_decoding import text_of, texts_of
from service.exits import BadData

LEGACY = {
    "cp1252": ["un café à la crème", "a “red” boat – at sea", "Straße", "30 €"],
    "cp1251": ["красная лодка на море"],
    "cp932": ["海の上の赤い船"],
    "gb18030": ["海上的一艘红船"],
    "utf-16-le": ["a red boat, at sea", "un café"],
    "utf-16-be": ["a red boat, at sea"],
}


@pytest.mark.parametrize(("encoding", "text"), [(name, text) for name, texts in LEGACY.items() for text in texts])
def test_old_encodings_are_told_from_one_another(encoding: str, text: str) -> None:
    assert text_of(text.encode(encoding), "a.txt") == text


@given(st.text().filter(lambda text: "\0" not in text), st.sampled_from(["utf-8-sig", "utf-16", "utf-32"]))
def test_a_byte_order_mark_says_what_follows(text: str, encoding: str) -> None:
    try:
        content = text.encode(encoding)
    except UnicodeEncodeError:
        return
    assert text_of(content, "a.txt") == text


@given(st.binary(max_size=40))
def test_no_letter_is_ever_replaced(content: bytes) -> None:
    with suppress(BadData):
        text = text_of(content, "ours/a.txt")
        assert "\0" not in text
        assert "\ufffd" not in text or b"\xef\xbf\xbd" in content or content.startswith((b"\xff\xfe", b"\xfe\xff"))


def test_a_word_alone_that_could_be_anything_is_refused_with_its_byte() -> None:
    with pytest.raises(BadData, match=r"^b.txt cannot be read as text at byte 2: .*save it as UTF-8"):
        text_of(b"a \xea\xee\xf2", "b.txt")


def test_the_texts_of_a_folder_help_each_other() -> None:
    texts = {f"{number}.txt": text for number, text in enumerate(
        ["кот", "красная лодка", "море"])}  # fmt: skip
    assert texts_of(
        {name: text.encode("cp1251") for name, text in texts.items()} | {"u.txt": "é".encode()}
    ) == texts | {"u.txt": "é"}


@pytest.mark.parametrize("content", [codecs.BOM_UTF8 + b"a\xff", codecs.BOM_UTF16_LE + b"a\0b", b"a\0\0\0b"])
def test_what_contradicts_itself_is_refused(content: bytes) -> None:
    with pytest.raises(BadData, match=r"^a[.]txt cannot be read as text"):
        text_of(content, "a.txt")
