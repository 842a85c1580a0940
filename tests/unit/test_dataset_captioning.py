"""What is made of BLIP's words."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from service.dataset.captioning import clean_caption, in_batches, with_style
from service.exits import OutOfDeviceMemory

WORDS = st.sampled_from(
    ["a", "pixel", "art", "of", "cat", "in", "style", "8", "-", "bit", "the", "image", "red", "Cat"]
)


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


@given(st.lists(WORDS, max_size=25).map(" ".join) | st.text())
def test_a_clean_caption_is_one_line_and_stays_as_it_is(said: str) -> None:
    cleaned = clean_caption(said)
    assert clean_caption(cleaned) == cleaned
    assert len(cleaned) <= len(said)
    assert cleaned == " ".join(cleaned.split())


def test_the_style_opens_the_caption_and_either_may_be_empty() -> None:
    assert with_style("8-bit illustration", "a red apple") == "8-bit illustration, a red apple"
    assert with_style("", "a red apple") == "a red apple"
    assert with_style("8-bit illustration", "") == "8-bit illustration"


def test_batches_are_halved_until_they_fit_and_no_image_is_lost() -> None:
    sizes = []

    def fits_three(batch: Sequence[Path]) -> list[str]:
        sizes.append(len(batch))
        if len(batch) > 3:
            raise torch.OutOfMemoryError
        return [str(file) for file in batch]

    images = [Path(str(index)) for index in range(10)]
    assert list(in_batches(images, 8, fits_three)) == [str(index) for index in range(10)]
    assert sizes == [8, 4, 2, 2, 2, 2, 2]


def test_an_image_that_does_not_fit_alone_is_an_error_that_says_so() -> None:
    def never_fits(_: Sequence[Path]) -> list[str]:
        raise torch.OutOfMemoryError

    with pytest.raises(OutOfDeviceMemory):
        list(in_batches([Path("a"), Path("b")], 2, never_fits))
