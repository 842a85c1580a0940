"""What was drawn, beside the training image that is nearest to it."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from service.artifacts.kinds.evaluation import Nearest
from service.artifacts.kinds.measurements import Measurements
from service.diffusion.drawing.grid import comparison_grid
from service.diffusion.images import CaptionedImage, open_image
from service.evaluation.criteria.memorisation import COSINES, NEAREST

SHOWN = 12
LABELS = ("drawn", "train")


def neighbours(measurements: Measurements, training: Sequence[CaptionedImage]) -> list[Nearest]:
    """Of each prompt the LoRA's picture that is nearest to a training image, the nearest first; at most 12.

    training: the images of the split, in its order. Empty where it was not measured.
    """
    if COSINES not in measurements.arrays:
        return []
    cosines, which = measurements.arrays[COSINES], measurements.arrays[NEAREST]
    nearest: dict[str, int] = {}
    for picture in np.argsort(-cosines, kind="stable"):
        nearest.setdefault(measurements.of.prompts[picture], int(picture))
    return [
        Nearest(picture, prompt, training[int(which[picture])].name, float(cosines[picture]))
        for prompt, picture in list(nearest.items())[:SHOWN]
    ]


def neighbours_grid(
    found: Sequence[Nearest], drawn: Sequence[Image.Image], training: Sequence[CaptionedImage]
) -> Image.Image | None:
    """The pictures above the training images, each pair with its cosine; None where there are none.

    drawn: all pictures of the LoRA; training: the images of the split.
    """
    if not found:
        return None
    by_name = {image.name: image for image in training}
    above = [drawn[one.picture] for one in found]
    below = [open_image(by_name[one.training]).resize(above[0].size, Image.Resampling.LANCZOS) for one in found]
    titles = [f"{one.cosine:.3f} {one.prompt}" for one in found]
    return comparison_grid(titles, [[image] for image in above], [[image] for image in below], LABELS)
