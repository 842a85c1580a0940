"""Does the LoRA still draw what was asked for?"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from service.artifacts.kinds.measurements import Measurements
from service.evaluation.criteria.criterion import NOT_BELOW, Criterion, Figures, at_most_lost
from service.evaluation.metrics import adherence_gain, mean
from service.evaluation.missing import doubt_of_mean
from service.evaluation.resampling import Bootstrap
from service.evaluation.sample import Sample
from service.settings.evaluate import EvaluateSettings


def _measure(sample: Sample) -> Mapping[str, ArrayLike]:
    scores = sample.clip_scores
    return {"base_clip_scores": np.asarray(scores.base), "lora_clip_scores": np.asarray(scores.lora)}


def _figures(measurements: Measurements, settings: EvaluateSettings) -> Figures:
    base, lora = (measurements.arrays[f"{side}_clip_scores"] for side in ("base", "lora"))
    of = measurements.of
    gain = adherence_gain(base, lora, of.prompts, Bootstrap(settings.confidence))
    return Figures(mean(base), mean(lora), gain, doubt_of_mean(lora - base, of.prompts, len(of.held_out)))


ADHERENCE = Criterion(
    name="adherence",
    title="Following the prompt",
    explanation="CLIPScore, 0 to 100: does the image show what the prompt asks for, its style phrase left out?",
    measure=_measure,
    figures=_figures,
    threshold=lambda settings: at_most_lost(settings.adherence_margin),
    rule=NOT_BELOW,
    clauses={
        "promote": "the prompts are still followed, CLIPScore {gain} where {threshold:+.3g} is allowed",
        "hold": "the prompts may be followed less, CLIPScore {gain} where {threshold:+.3g} is allowed",
        "reject": "the prompts are followed less, CLIPScore {gain} where {threshold:+.3g} is allowed",
        "not finite": "the adherence gain is not finite, {gain}",
    },
)
