"""What is made of a captioner's words, and of the owner's."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.dataset.captions.text import clean_caption, is_nothing, styled, with_style, within_limit

WORDS = st.sampled_from(
    ["a", "pixel", "art", "of", "cat", "in", "style", "8", "-", "bit", "the", "image", "red", "Cat"]
)
texts = st.lists(WORDS, max_size=25).map(" ".join) | st.text()


@pytest.mark.parametrize(
    ("said", "cleaned"),
    [
        ("a red apple", "a red apple"),
        ("  a \n red\tapple ", "a red apple"),
        ("a pixel art of a red apple", "a red apple"),
        ("an 8 - bit illustration of a castle", "a castle"),
        ("a picture of a pixel art of a cat", "a cat"),
        ("the image showing a tree", "a tree"),
        ("a red apple in pixel style", "a red apple"),
        ("a cat dai dai dai", "a cat dai"),
        ("a man and a dog and a dog and a dog", "a man and a dog"),
        ("a pixel art of", ""),
        ("a painter of pictures", "a painter of pictures"),
        ("a glass of water in a kitchen", "a glass of water in a kitchen"),
        ("art", "art"),
    ],
)
def test_a_caption_names_the_content_once_and_not_the_medium(said: str, cleaned: str) -> None:
    assert clean_caption(said) == cleaned


@given(texts)
def test_a_clean_caption_is_one_line_and_stays_as_it_is(said: str) -> None:
    cleaned = clean_caption(said)
    assert clean_caption(cleaned) == cleaned
    assert len(cleaned) <= len(said)
    assert cleaned == " ".join(cleaned.split())


@pytest.mark.parametrize("said", ["a " * 50_000, "a pixel " * 20_000, "x" * 100_000, "in a pixel art " * 9_000])
def test_a_model_that_does_not_stop_talking_holds_nothing_up(said: str) -> None:
    start = time.process_time()
    clean_caption(said)
    assert time.process_time() - start < 5


def test_the_style_opens_the_caption_and_either_may_be_empty() -> None:
    assert with_style("8-bit illustration", "a red apple") == "8-bit illustration, a red apple"
    assert with_style("", "a red apple") == "a red apple"
    assert with_style("8-bit illustration", "") == "8-bit illustration"


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a cat", "pixel art, a cat"),
        (" Pixel  Art, a cat", "Pixel Art, a cat"),
        ("pixel arty cat", "pixel art, pixel arty cat"),
        ("pixel art", "pixel art"),
        ("a pixel art of a cat", "pixel art, a pixel art of a cat"),
    ],
)
def test_the_owner_s_caption_is_kept_word_for_word_with_the_style_in_front(caption: str, expected: str) -> None:
    assert styled("pixel art", caption) == expected
    assert styled("pixel art", expected) == expected


@given(st.lists(st.text("abc,", min_size=1, max_size=6), min_size=1, max_size=40), st.integers(1, 60))
def test_as_many_whole_words_are_kept_as_fit(words: list[str], limit: int) -> None:
    text = " ".join(words)
    cut = within_limit(text, len, limit)
    assert text.startswith(cut)
    if len(text) <= limit:
        assert cut == text
        return
    fitting = [" ".join(words[:count]) for count in range(1, len(words)) if len(" ".join(words[:count])) <= limit]
    assert cut == max([words[0], *fitting], key=len).rstrip(" ,;:")


def test_a_long_text_is_not_counted_word_by_word() -> None:
    counted = []

    def count(text: str) -> int:
        counted.append(text)
        return len(text.split())

    assert within_limit("word " * 4000, count, 77).split() == ["word"] * 77
    assert len(counted) < 20


@pytest.mark.parametrize("text", ["", " ", "None", "null", "NaN", "n/a"])
def test_what_a_reader_takes_for_nothing_is_nothing(text: str) -> None:
    assert is_nothing(text)
    assert not is_nothing(f"a {text}x")
