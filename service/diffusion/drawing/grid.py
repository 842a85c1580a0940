"""One picture that shows the base model above the LoRA, or other pairs one above the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

COLUMNS = 12
SHOWN = 192
LARGEST_SHOWN = 256
GAP = 8
PROMPT_GAP = 24
LABEL_WIDTH = 84
# Large, because a page shows a grid of many columns at half its size or less.
FONT_SIZE = 24
LINE_HEIGHT = 30
CAPTION_LINES = 4
BACKGROUND = "#ffffff"
INK = "#202020"


SIDES = ("base", "LoRA")


@dataclass(frozen=True)
class Block:
    """Neighbouring columns of one prompt: its variations, or as many of them as fit into one band."""

    prompt: str
    base: list[Image.Image]
    lora: list[Image.Image]


def comparison_grid(
    prompts: Sequence[str],
    base_images: Sequence[Sequence[Image.Image]],
    lora_images: Sequence[Sequence[Image.Image]],
    labels: tuple[str, str] = SIDES,
) -> Image.Image:
    """The same prompts and seeds as the base (top row) and the LoRA (bottom row) draw them; a column each.

    `base_images[p][v]` and `lora_images[p][v]` are variation v of prompt p; `labels` stand before the two rows. Above 12
    columns the grid goes on in further bands of base over LoRA. Images below 192 px are enlarged by a whole factor without
    smoothing, so that their pixels can be seen as they are; those above 256 px are reduced to 256.
    """
    blocks = _blocks(prompts, base_images, lora_images)
    if not blocks:
        raise ValueError("a grid needs at least one image")
    cell = max(max(shown(image).size) for block in blocks for image in block.base + block.lora)
    bands = [_draw_band(band, cell, labels) for band in _bands(blocks)]
    grid = Image.new("RGB", (max(band.width for band in bands), sum(band.height for band in bands)), BACKGROUND)
    top = 0
    for band in bands:
        grid.paste(band, (0, top))
        top += band.height
    return grid


def rows_grid(rows: Mapping[str, Sequence[Image.Image]], columns: int = COLUMNS) -> Image.Image:
    """A row of pictures for each label, of the first `columns` pictures; all rows are of the same prompts and seeds."""
    cells = {label: [shown(image) for image in row[:columns]] for label, row in rows.items()}
    side = max(image.height for row in cells.values() for image in row) + GAP
    width = LABEL_WIDTH + max(sum(image.width + GAP for image in row) for row in cells.values())
    grid = Image.new("RGB", (width, GAP + side * len(cells)), BACKGROUND)
    draw = ImageDraw.Draw(grid)
    font = ImageFont.load_default(FONT_SIZE)
    for number, (label, row) in enumerate(cells.items()):
        top, left = GAP + number * side, LABEL_WIDTH
        draw.text((GAP, top + side / 2), label, INK, font, anchor="lm")
        for image in row:
            grid.paste(image, (left, top))
            left += image.width + GAP
    return grid


def shown(image: Image.Image) -> Image.Image:
    """The image at the size in which the grid shows it."""
    side = max(image.size)
    if side > LARGEST_SHOWN:
        size = [max(1, round(edge * LARGEST_SHOWN / side)) for edge in image.size]
        return image.convert("RGB").resize((size[0], size[1]), Image.Resampling.LANCZOS)
    factor = max(1, round(SHOWN / side))
    return image.convert("RGB").resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _blocks(
    prompts: Sequence[str], base_images: Sequence[Sequence[Image.Image]], lora_images: Sequence[Sequence[Image.Image]]
) -> list[Block]:
    blocks = []
    for prompt, base, lora in zip(prompts, base_images, lora_images, strict=True):
        if len(base) != len(lora):
            raise ValueError(f"prompt {prompt!r} has {len(base)} images of the base and {len(lora)} of the LoRA")
        for start in range(0, len(base), COLUMNS):
            part = slice(start, start + COLUMNS)
            blocks.append(Block(prompt, list(base[part]), list(lora[part])))
    return blocks


def _bands(blocks: Sequence[Block]) -> list[list[Block]]:
    """Fills bands of at most 12 columns in order, without dividing a block."""
    bands: list[list[Block]] = [[]]
    for block in blocks:
        if sum(len(placed.base) for placed in bands[-1]) + len(block.base) > COLUMNS:
            bands.append([])
        bands[-1].append(block)
    return bands


def _draw_band(blocks: Sequence[Block], cell: int, labels: tuple[str, str]) -> Image.Image:
    font = ImageFont.load_default(FONT_SIZE)
    captions = [wrapped(block.prompt, len(block.base) * (cell + GAP) - GAP, font) for block in blocks]
    caption_height = max(len(lines) for lines in captions) * LINE_HEIGHT
    columns = sum(len(block.base) for block in blocks)
    rows = [GAP + caption_height + row * (cell + GAP) for row in range(2)]
    width = LABEL_WIDTH + columns * (cell + GAP) + (len(blocks) - 1) * PROMPT_GAP
    band = Image.new("RGB", (width, rows[1] + cell + GAP), BACKGROUND)
    draw = ImageDraw.Draw(band)
    for label, top in zip(labels, rows, strict=True):
        draw.text((GAP, top + cell / 2), label, INK, font, anchor="lm")
    left = LABEL_WIDTH
    for block, lines in zip(blocks, captions, strict=True):
        for number, line in enumerate(lines):
            draw.text((left, GAP + number * LINE_HEIGHT), line, INK, font, anchor="la")
        for pair in zip(block.base, block.lora, strict=True):
            for image, top in zip(pair, rows, strict=True):
                band.paste(shown(image), (left, top))
            left += cell + GAP
        left += PROMPT_GAP
    return band


def wrapped(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """Breaks the text into at most 4 lines of `width` pixels, at spaces where it can; an ellipsis ends a text cut short."""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".lstrip()
        if font.getlength(joined) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    if len(lines) <= CAPTION_LINES:
        return lines
    last = lines[CAPTION_LINES - 1]
    while last and font.getlength(last + "…") > width:
        last = last[:-1]
    return [*lines[: CAPTION_LINES - 1], last + "…"]
