"""Does the LoRA do anything?"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from service.artifacts.kinds.measurements import Measurements
from service.evaluation.criteria.criterion import AT_LEAST, Criterion, Figures
from service.evaluation.metrics import liveness, pixel_differences
from service.evaluation.sample import Sample
from service.settings.evaluate import EvaluateSettings


def _measure(sample: Sample) -> Mapping[str, ArrayLike]:
    return {"pixel_differences": pixel_differences(sample.pictures.base, sample.pictures.lora)}


def _figures(measurements: Measurements, _: EvaluateSettings) -> Figures:
    return Figures(base=None, lora=liveness(np.asarray(measurements.arrays["pixel_differences"])))


LIVENESS = Criterion(
    name="liveness",
    title="LoRA is live",
    explanation="Share of the pairs, same prompt and same seed, in which the LoRA visibly changes the image.",
    measure=_measure,
    figures=_figures,
    threshold=lambda settings: settings.live_share,
    rule=AT_LEAST,
    clauses={
        "promote": "the LoRA changes {lora:.1%} of the images",
        "reject": "the LoRA changes {lora:.1%} of the images where {threshold:.1%} are needed",
        "not finite": "the share of images that the LoRA changes is {lora}",
    },
    unit="share",
)
