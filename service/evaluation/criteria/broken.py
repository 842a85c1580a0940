"""Are all pictures pictures?"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from service.artifacts.kinds.measurements import Measurements
from service.evaluation.criteria.criterion import AT_MOST, Criterion, Figures
from service.evaluation.sample import Sample
from service.settings.evaluate import EvaluateSettings

FLAT = 1.0
"""One step of 8 bits: a picture of one colour, black included, has no more after the autoencoder's noise."""


def contrasts(pictures: Sequence[Image.Image]) -> NDArray[np.float64]:
    """(N,), 0 to 127.5: the standard deviation of the pixels of each picture, in steps of 8 bits, in the channel where it is
    largest. What is not finite while it is drawn never becomes a picture."""
    spreads = [np.asarray(picture.convert("RGB"), np.float64).std(axis=(0, 1)).max() for picture in pictures]
    return np.array(spreads)


def _measure(sample: Sample) -> Mapping[str, ArrayLike]:
    return {
        "base_contrasts": contrasts(sample.pictures.base),
        "lora_contrasts": contrasts(sample.pictures.lora),
    }


def _figures(measurements: Measurements, _: EvaluateSettings) -> Figures:
    base, lora = (float((measurements.arrays[f"{side}_contrasts"] <= FLAT).sum()) for side in ("base", "lora"))
    return Figures(base, lora)


BROKEN = Criterion(
    name="broken",
    title="Broken pictures",
    explanation="Number of the pictures that are black, or of one colour.",
    measure=_measure,
    figures=_figures,
    threshold=lambda settings: settings.broken_pictures,
    rule=AT_MOST,
    clauses={
        "promote": "{lora:.0f} pictures are black or of one colour",
        "reject": "{lora:.0f} pictures are black or of one colour where {threshold:.0f} are allowed",
        "not finite": "the number of broken pictures is {lora}",
    },
    unit="count",
)
