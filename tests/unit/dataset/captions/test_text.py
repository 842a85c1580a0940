"""What is made of a captioner's words, and of the owner's."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.dataset.captions.text import clean_caption, is_nothing, styled, with_style, within_limit
from service.dataset.notes import Note

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
        ("a cat on top of a hat on top of a hat", "a cat on top of a hat"),
        ("on top of a hat on top of a hat", "on top of a hat"),
        ("one two three four five six seven one two three four five six seven", "one two three four five six seven"),
        ("arafed image of a man", "a man"),
        ("there are araffes standing in a field", "there are standing in a field"),
        ("an arafed cat", "cat"),
        ("a giraffe and a carafe", "a giraffe and a carafe"),
        ("a painter of pictures", "a painter of pictures"),
        ("a glass of water in a kitchen", "a glass of water in a kitchen"),
        ("art", "art"),
    ],
)
def test_a_caption_names_the_content_once_and_not_the_medium(said: str, cleaned: str) -> None:
    assert clean_caption(said).text == cleaned


@given(texts)
def test_a_clean_caption_is_one_line_and_stays_as_it_is(said: str) -> None:
    cleaned, _ = clean_caption(said)
    assert clean_caption(cleaned) == (cleaned, frozenset())
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
    assert styled("pixel art", caption) == (expected, frozenset())
    assert styled("pixel art", expected) == (expected, frozenset())


@given(st.lists(st.text("abc,", min_size=1, max_size=6), min_size=1, max_size=40), st.integers(1, 60))
def test_as_many_whole_words_are_kept_as_fit(words: list[str], limit: int) -> None:
    text = " ".join(words)
    cut = within_limit(text, len, limit)
    assert text.startswith(cut)
    if len(text) <= limit:
        assert cut == text
        return
    fitting = [" ".join(words[:count]) for count in range(1, len(words)) if len(" ".join(words[:count])) <= limit]
    assert cut == max(["", *fitting], key=len).rstrip(" ,;:") or (len(words[0]) > limit and cut == words[0][:limit])


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


@pytest.mark.parametrize(
    "text", ["海上的一艘红船" * 20, "赤い船が海に" * 20, "x" * 300, "a boat, " + "海上的一艘红船" * 20]
)
def test_a_text_without_blanks_is_cut_behind_a_letter(text: str) -> None:
    assert within_limit(text, len, 77) == text[:77].rstrip(" ,;:、，；：")


def test_lines_of_a_caption_become_one_and_that_is_noted() -> None:
    assert styled("", "a cat\r\n\non a wall\n") == ("a cat on a wall", {Note.LINES_JOINED})
    assert styled("", "a cat\n") == ("a cat", frozenset())


def test_what_was_cut_is_noted() -> None:
    assert clean_caption("a cat and a cat and a cat").notes == {Note.LOOPS_CUT}
    assert clean_caption("arafed cat").notes == {Note.INVENTED_WORDS_CUT}
    assert clean_caption("a pixel art of a cat").notes == frozenset()
