"""Drawn pictures as files: PNGs that tell how they were made."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from service.diffusion.drawing.requests import Request
from service.exits import BadData


def write_pictures(
    folder: Path, pictures: Sequence[Image.Image], requests: Sequence[Request], recipe: Mapping[str, Any]
) -> None:
    """One PNG a picture, 00000.png and on, with everything inside that is needed to draw it again."""
    folder.mkdir()
    for number, (picture, request) in enumerate(zip(pictures, requests, strict=True)):
        parameters = PngInfo()
        parameters.add_text("parameters", json.dumps({**recipe, "prompt": request.prompt, "seed": request.seed}))
        picture.save(folder / f"{number:05d}.png", pnginfo=parameters)


def read_pictures(folder: Path) -> list[Image.Image]:
    """The pictures that `write_pictures` wrote, pixel for pixel and in their order. Raises BadData for what is none."""
    return [read_picture(file) for file in sorted(folder.glob("*.png"))]


def read_picture(file: Path) -> Image.Image:
    """One picture, in RGB. Raises BadData for what is none."""
    try:
        return Image.open(file).convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise BadData(f"{file} cannot be read as a picture: {error}") from error
