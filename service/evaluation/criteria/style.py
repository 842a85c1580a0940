"""Is the style nearer to that of the held-out images?"""

from collections.abc import Mapping

from numpy.typing import ArrayLike

from service.artifacts.kinds.measurements import Measurements
from service.evaluation.criteria.criterion import ABOVE, Criterion, Figures
from service.evaluation.metrics import kid, kid_kernel, style_gain
from service.evaluation.missing import doubt_of_distance
from service.evaluation.resampling import Bootstrap
from service.evaluation.sample import Sample
from service.settings.evaluate import EvaluateSettings


def _measure(sample: Sample) -> Mapping[str, ArrayLike]:
    return {
        "held_out_features": sample.held_out_features,
        "base_features": sample.features.base,
        "lora_features": sample.features.lora,
    }


def _figures(measurements: Measurements, settings: EvaluateSettings) -> Figures:
    reference, base, lora = (measurements.arrays[f"{side}_features"] for side in ("held_out", "base", "lora"))
    prompts = measurements.of.prompts
    gain = style_gain(reference, base, lora, prompts, Bootstrap(settings.confidence))
    doubt = doubt_of_distance(kid_kernel, reference, base, lora, prompts)
    return Figures(kid(reference, base), kid(reference, lora), gain, doubt)


STYLE = Criterion(
    name="style",
    title="Distance to the style",
    explanation="Kernel distance (KID) between the features of the generated and of the held-out images; 0 is the same style.",
    measure=_measure,
    figures=_figures,
    threshold=lambda settings: settings.style_gain,
    rule=ABOVE,
    clauses={
        "promote": "the style comes nearer to the held-out images, gain {gain}",
        "hold": "the style may come no nearer to the held-out images, gain {gain}",
        "reject": "the style comes no nearer to the held-out images, gain {gain}",
        "not finite": "the style gain is not finite, {gain}",
    },
)
