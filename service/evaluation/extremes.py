"""The prompts that the LoRA follows least and most, compared with the base: what a mean hides."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from service.artifacts.kinds.measurements import Measurements
from service.diffusion.drawing.grid import comparison_grid

Pictures = Sequence[Sequence[Image.Image]]

EACH = 3
SEEDS = 2
"""Of six prompts, that many fill a band of the grid."""


class Extreme(NamedTuple):
    """A prompt by its number; gain: mean CLIPScore of the LoRA's pictures minus that of the base's."""

    prompt: int
    gain: float


def extremes(measurements: Measurements) -> list[Extreme]:
    """The 3 prompts that lose most, and the 3 that gain most, least first; all of fewer than 6."""
    base, lora = (measurements.arrays[f"{side}_clip_scores"] for side in ("base", "lora"))
    gains = (lora - base).reshape(-1, measurements.of.variations).mean(axis=1)
    ranked = [int(number) for number in np.argsort(gains, kind="stable")]
    named = ranked if len(ranked) <= 2 * EACH else ranked[:EACH] + ranked[-EACH:]
    return [Extreme(number, float(gains[number])) for number in named]


def extremes_grid(found: Sequence[Extreme], prompts: Sequence[str], base: Pictures, lora: Pictures) -> Image.Image:
    """The base above the LoRA, each prompt with its gain. base, lora: the pictures of each prompt."""
    titles = [f"{one.gain:+.1f} {prompts[one.prompt]}" for one in found]
    above, below = ([side[one.prompt][:SEEDS] for one in found] for side in (base, lora))
    return comparison_grid(titles, above, below)
