import numpy as np
import pytest
from PIL import Image, ImageFont

from service.diffusion.drawing.grid import BACKGROUND, COLUMNS, LABEL_WIDTH, comparison_grid, shown, wrapped

RED, BLUE = (255, 0, 0), (0, 0, 255)


def plain(colour: tuple[int, int, int], size: int = 64) -> Image.Image:
    return Image.new("RGB", (size, size), colour)


def runs(pixels: np.ndarray, colour: tuple[int, int, int]) -> int:
    """How many separate stretches of the colour a line of pixels has."""
    hit = (pixels == colour).all(axis=-1).astype(int)
    return int((np.diff(hit, prepend=0) == 1).sum())


def test_the_base_stands_above_the_lora_in_a_column_for_each_prompt_and_variation() -> None:
    grid = comparison_grid(["an apple", "a boat"], [[plain(RED)] * 3] * 2, [[plain(BLUE)] * 3] * 2)
    pixels = np.asarray(grid)
    red, blue = (pixels == RED).all(axis=-1), (pixels == BLUE).all(axis=-1)
    assert red.sum() == blue.sum() == 6 * 192 * 192
    assert np.nonzero(red)[0].max() < np.nonzero(blue)[0].min()
    assert runs(pixels[np.nonzero(red)[0].min()], RED) == 6


def test_many_columns_go_on_in_bands_that_each_have_base_over_lora() -> None:
    prompts = [f"prompt {number}" for number in range(9)]
    pixels = np.asarray(comparison_grid(prompts, [[plain(RED)] * 3] * 9, [[plain(BLUE)] * 3] * 9))
    column = pixels[:, LABEL_WIDTH + 1]
    assert runs(column, RED) == runs(column, BLUE) == 3
    rows = np.nonzero((pixels == RED).all(axis=-1).any(axis=1))[0]
    assert max(runs(pixels[row], RED) for row in rows) == COLUMNS


def test_a_prompt_of_more_variations_than_columns_loses_none() -> None:
    pixels = np.asarray(comparison_grid(["a"], [[plain(RED)] * 15], [[plain(BLUE)] * 15]))
    assert (pixels == RED).all(axis=-1).sum() == 15 * 192 * 192


def test_small_images_are_enlarged_by_a_whole_factor_without_new_colours() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    assert shown(noise).size == (192, 192)
    assert np.array_equal(np.asarray(shown(noise))[1::3, 1::3], np.asarray(noise))


def test_large_images_are_reduced() -> None:
    assert shown(Image.new("RGB", (512, 512))).size == (256, 256)
    assert shown(Image.new("RGB", (768, 512))).size == (256, 171)
    assert shown(Image.new("RGB", (200, 200))).size == (200, 200)


def test_captions_wrap_within_their_columns_and_end_in_an_ellipsis_when_cut() -> None:
    font = ImageFont.load_default(14)
    lines = wrapped("8-bit illustration, " + "a very red apple on a " * 20 + "w" * 80, 192, font)
    assert len(lines) == 4
    assert lines[-1].endswith("…")
    assert all(font.getlength(line) <= 192 for line in lines)
    assert wrapped("a red\napple", 192, font) == ["a red apple"]
    assert "".join(wrapped("w" * 50, 192, font)) == "w" * 50


def test_a_prompt_of_words_that_no_font_has_still_gives_a_grid() -> None:
    assert comparison_grid(["りんご 🍎 \x00"], [[plain(RED)]], [[plain(BLUE)]]).width > 192


def test_the_captions_are_drawn() -> None:
    bare = comparison_grid([""], [[plain(RED)]], [[plain(BLUE)]])
    captioned = comparison_grid(["a red apple"], [[plain(RED)]], [[plain(BLUE)]])
    assert bare.size == captioned.size
    assert bare.tobytes() != captioned.tobytes()
    assert captioned.getpixel((captioned.width - 1, 0)) == Image.new("RGB", (1, 1), BACKGROUND).getpixel((0, 0))


def test_sides_that_do_not_pair_up_are_refused() -> None:
    with pytest.raises(ValueError, match="2 images of the base and 1 of the LoRA"):
        comparison_grid(["a"], [[plain(RED)] * 2], [[plain(BLUE)]])
    with pytest.raises(ValueError, match="at least one image"):
        comparison_grid([], [], [])
