"""Drawn pictures as files: PNGs that tell how they were made, to other programs and to ours."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from service.diffusion.drawing.requests import Drawing, Request
from service.exits import BadData

OTHERS = "parameters"
"""Name of the text that A1111 writes into its pictures, and that it, ComfyUI's and InvokeAI's importers and Civitai read."""

OURS = "sdlora"
"""Name of the text with the whole recipe, as JSON."""


@dataclass(frozen=True)
class Origin:
    """How pictures were drawn. model: MODEL_BASE; sampler: as A1111 calls it; recipe: the identity of the images."""

    drawing: Drawing
    model: str
    sampler: str
    recipe: Mapping[str, Any]


def write_pictures(folder: Path, pictures: Sequence[Image.Image], requests: Sequence[Request], origin: Origin) -> None:
    """One PNG a picture, 00000.png and on, with everything inside that is needed to draw it again."""
    folder.mkdir()
    for number, (picture, request) in enumerate(zip(pictures, requests, strict=True)):
        facts = {**origin.recipe, "prompt": request.prompt, "seed": request.seed}
        _save(picture, folder / f"{number:05d}.png", parameters(request, picture.size, origin), facts)


def write_grid(
    file: Path, grid: Image.Image, size: tuple[int, int], requests: Sequence[Request], origin: Origin
) -> None:
    """The grid as a PNG that tells the same: of its first picture to other programs, of all of them to ours.

    size: width and height of one picture.
    """
    prompts = list(dict.fromkeys(request.prompt for request in requests))
    facts = {**origin.recipe, "prompts": prompts, "seed": requests[0].seed}
    _save(grid, file, parameters(requests[0], size, origin), facts)


def read_pictures(folder: Path) -> list[Image.Image]:
    """The pictures that `write_pictures` wrote, pixel for pixel and in their order. Raises BadData for what is none."""
    return [read_picture(file) for file in sorted(folder.glob("*.png"))]


def read_picture(file: Path) -> Image.Image:
    """One picture, in RGB. Raises BadData for what is none."""
    try:
        return Image.open(file).convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise BadData(f"{file} cannot be read as a picture: {error}") from error


def parameters(request: Request, size: tuple[int, int], origin: Origin) -> str:
    """A1111's layout: the prompt, the negative prompt where there is one, and a line of facts. size: width and height."""
    facts = {
        "Steps": origin.drawing.steps,
        "Sampler": origin.sampler,
        "CFG scale": f"{origin.drawing.guidance:g}",
        "Seed": request.seed,
        "Size": f"{size[0]}x{size[1]}",
        "Model": origin.model,
    }
    lines = [_one_line(request.prompt)]
    if origin.drawing.negative_prompt:
        lines.append(f"Negative prompt: {_one_line(origin.drawing.negative_prompt)}")
    lines.append(", ".join(f"{name}: {_quoted(str(value))}" for name, value in facts.items()))
    return "\n".join(lines)


def _one_line(text: str) -> str:
    """Its readers go by lines: a second one of a prompt could pass for the facts."""
    return " ".join(text.split())


def _quoted(text: str) -> str:
    """As A1111 does where a comma or a colon would end the fact."""
    return json.dumps(text, ensure_ascii=False) if any(mark in text for mark in ",:\n") else text


def _save(picture: Image.Image, file: Path, text: str, facts: Mapping[str, Any]) -> None:
    chunks = PngInfo()
    chunks.add_text(OTHERS, text)
    chunks.add_text(OURS, json.dumps(facts))
    picture.save(file, pnginfo=chunks)
