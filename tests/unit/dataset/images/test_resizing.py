"""The shape in which an image enters the data set."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.dataset.images import resizing
from service.dataset.images.resizing import squared

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def shaped(image: Image.Image, square: Any, side: int | None, enlarge: str, shrink: str) -> Image.Image:
    return resizing.shaped(image, square=square, side=side, enlarge=enlarge, shrink=shrink)


def test_squares_are_cut_from_the_centre_or_padded_with_white() -> None:
    image = Image.new("RGB", (30, 10), RED)
    image.paste(BLUE, (10, 0, 20, 10))
    assert squared(image, "keep") is image
    cropped = squared(image, "crop")
    assert cropped.size == (10, 10)
    assert cropped.getcolors() == [(100, BLUE)]
    padded = squared(image, "pad")
    assert padded.size == (30, 30)
    assert padded.getpixel((15, 15)) == BLUE
    assert padded.getpixel((15, 9)) == WHITE
    assert padded.getpixel((15, 20)) == WHITE


@pytest.mark.parametrize(
    ("square", "size", "expected"),
    [
        ("keep", (40, 20), (32, 16)),
        ("crop", (40, 20), (16, 16)),
        ("pad", (40, 20), (16, 16)),
        ("keep", (8, 10), (16, 20)),
        ("keep", (16, 33), (16, 33)),
        ("pad", (8, 4), (16, 16)),
    ],
)
def test_the_side_is_the_shorter_one_and_with_margins_the_longer_one(
    square: str, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert shaped(Image.new("RGB", size), square, 16, "nearest", "lanczos").size == expected


def test_without_a_side_the_size_stays() -> None:
    assert shaped(Image.new("RGB", (7, 9)), "keep", None, "nearest", "lanczos").size == (7, 9)


def test_pixel_art_is_enlarged_without_a_new_colour_and_photos_smoothly() -> None:
    art = Image.fromarray(np.array([[RED, BLUE], [BLUE, RED]], dtype=np.uint8))
    assert sorted(shaped(art, "keep", 16, "nearest", "box").getcolors() or []) == [(128, BLUE), (128, RED)]
    assert len(shaped(art, "keep", 16, "lanczos", "box").getcolors() or []) > 2
    assert shaped(art, "keep", 16, "never", "box") is art


def test_shrinking_averages_and_may_be_forbidden() -> None:
    board = Image.fromarray(np.indices((32, 32)).sum(0).astype(np.uint8) % 2 * 255).convert("RGB")
    assert shaped(board, "keep", 16, "nearest", "box").getcolors() in (
        [(256, (127, 127, 127))],
        [(256, (128, 128, 128))],
    )
    assert shaped(board, "keep", 16, "nearest", "never") is board
