"""Does the style come in where nobody asked for it?"""

from collections.abc import Mapping

from numpy.typing import ArrayLike

from service.artifacts.kinds.evaluation import Interval
from service.artifacts.kinds.measurements import Measurements
from service.evaluation.criteria.criterion import NOT_BELOW, Criterion, Figures, at_most_lost
from service.evaluation.metrics import kid, style_gain
from service.evaluation.resampling import Bootstrap
from service.evaluation.sample import Sample
from service.settings.evaluate import EvaluateSettings


def _measure(sample: Sample) -> Mapping[str, ArrayLike]:
    features = sample.features_without_style
    if features is None:
        return {}
    return {
        "held_out_features": sample.held_out_features,
        "base_features_without_style": features.base,
        "lora_features_without_style": features.lora,
    }


def _figures(measurements: Measurements, settings: EvaluateSettings) -> Figures | None:
    if "lora_features_without_style" not in measurements.arrays:
        return None
    reference = measurements.arrays["held_out_features"]
    base, lora = (measurements.arrays[f"{side}_features_without_style"] for side in ("base", "lora"))
    nearer = style_gain(reference, base, lora, range(len(lora)), Bootstrap(settings.confidence))
    gain = Interval(-nearer.value, -nearer.high, -nearer.low)
    return Figures(kid(reference, base), kid(reference, lora), gain)


BLEED = Criterion(
    name="bleed",
    title="Bleed",
    explanation="Distance to the style (KID) of pictures whose prompts lack the style phrase; below 0, the gain says by how "
    "much the LoRA brings the style in unasked.",
    measure=_measure,
    figures=_figures,
    threshold=lambda settings: at_most_lost(settings.bleed_margin),
    rule=NOT_BELOW,
    clauses={
        "promote": "the style stays out of prompts without its phrase, bleed {gain} where {threshold:+.3g} is allowed",
        "hold": "the style may bleed into prompts without its phrase, {gain} where {threshold:+.3g} is allowed",
        "reject": "the style bleeds into prompts without its phrase, {gain} where {threshold:+.3g} is allowed",
        "not finite": "the bleed is not finite, {gain}",
        "not measured": "the bleed is not known, because fewer than 2 prompts have anything beside a style phrase",
    },
)
