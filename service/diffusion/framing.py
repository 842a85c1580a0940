"""Which part of an image a model sees: the square of the recipe, or the nearest rectangle of the same area."""

import math
from dataclasses import dataclass
from itertools import product


@dataclass(frozen=True)
class Framing:
    """A rectangle of `width` × `height` pixels over an image that is resized to cover it.

    left, top: where in the free room the rectangle lies, from 0 to 1; 0.5 is the centre.
    """

    width: int
    height: int
    left: float = 0.5
    top: float = 0.5


def square(resolution: int) -> Framing:
    """The recipe's centre crop of resolution × resolution pixels, in which held-out images are seen too."""
    return Framing(resolution, resolution)


def covering_size(image: tuple[int, int], framing: Framing) -> tuple[int, int]:
    """Width and height in pixels of an image of (width, height) pixels once it is resized: it covers the frame, and one
    side fits exactly (torchvision's Resize of the shorter side)."""
    width, height = image
    if framing.width * height >= framing.height * width:
        return framing.width, max(framing.height, int(framing.width * height / width))
    return max(framing.width, int(framing.height * width / height)), framing.height


def bucket_of(image: tuple[int, int], resolution: int, step: int, enlarge: float) -> tuple[int, int]:
    """Width and height, multiples of `step`, of the rectangle for an image of (width, height) pixels.

    Its area is at most resolution²; among those it has the aspect ratio nearest to the image's, then the largest area.
    An image is enlarged at most `enlarge` times, and gets a smaller rectangle otherwise, down to step × step.
    """
    width, height = image
    area = min(resolution**2, width * height * enlarge**2)
    ideal = math.sqrt(area * width / height), math.sqrt(area * height / width)
    sides = [{max(step, int(side // step * step)), max(step, int(math.ceil(side / step) * step))} for side in ideal]
    candidates = [
        (w, h)
        for w, h in product(*sides)
        if (w * h <= resolution**2 and max(w / width, h / height) <= enlarge) or (w, h) == (step, step)
    ]
    # Rounded down on both sides the rectangle always fits, but for images that are smaller than one step.
    candidates.append((min(sides[0]), min(sides[1])))

    def misfit(bucket: tuple[int, int]) -> tuple[float, int]:
        return round(abs(math.log(bucket[0] / bucket[1] * height / width)), 9), -bucket[0] * bucket[1]

    return min(candidates, key=misfit)
