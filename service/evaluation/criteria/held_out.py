"""Does the LoRA predict held-out images better?"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from service.artifacts.kinds.measurements import Measurements
from service.evaluation.criteria.criterion import NOT_CREDIBLY_BELOW, Criterion, Figures
from service.evaluation.metrics import held_out_gain, mean
from service.evaluation.resampling import Bootstrap
from service.evaluation.sample import Sample
from service.settings.evaluate import EvaluateSettings


def _measure(sample: Sample) -> Mapping[str, ArrayLike]:
    losses = sample.held_out_losses
    return {"base_held_out_losses": np.asarray(losses.base), "lora_held_out_losses": np.asarray(losses.lora)}


def _figures(measurements: Measurements, settings: EvaluateSettings) -> Figures:
    base, lora = (measurements.arrays[f"{side}_held_out_losses"] for side in ("base", "lora"))
    return Figures(mean(base), mean(lora), held_out_gain(base, lora, Bootstrap(settings.confidence)))


# The loss follows style faintly, so that an interval around 0 is what a good LoRA, too, may show: it can only veto.
HELD_OUT = Criterion(
    name="held_out",
    title="Held-out loss",
    explanation="How well the model predicts the noise in images that it never saw, at fixed timesteps and noise.",
    measure=_measure,
    figures=_figures,
    threshold=lambda settings: settings.held_out_gain,
    rule=NOT_CREDIBLY_BELOW,
    clauses={
        "promote": "the held-out loss is not credibly higher than the base's, gain {gain}",
        "hold": "the held-out loss is higher than the base's, gain {gain}",
        "not finite": "the held-out loss is not finite, gain {gain}",
    },
)
