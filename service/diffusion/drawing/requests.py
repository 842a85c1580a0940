"""What is to be drawn, and how."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True)
class Request:
    """One picture to draw."""

    prompt: str
    seed: int


@dataclass(frozen=True)
class Drawing:
    """How to draw. `resolution` in pixels, None for the model's own; `batch_size` pictures at once."""

    steps: int
    guidance: float
    resolution: int | None
    batch_size: int
    negative_prompt: str = ""


def requests_for(prompts: Sequence[str], variations: int, seed: int) -> list[Request]:
    """Every prompt with the seeds seed, seed + 1, …, prompt by prompt."""
    return [Request(prompt, seed + variation) for prompt in prompts for variation in range(variations)]


def by_prompt(pictures: Sequence[Image.Image], variations: int) -> list[list[Image.Image]]:
    """Pictures of `requests_for`, grouped again: the variations of a prompt in one list."""
    return [list(pictures[i : i + variations]) for i in range(0, len(pictures), variations)]
