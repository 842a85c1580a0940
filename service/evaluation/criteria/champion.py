"""Is the LoRA no worse than the one that reigns? Asked only where there is a champion, and it is another LoRA."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from service.artifacts.kinds.measurements import Measurements
from service.evaluation.criteria.criterion import NOT_BELOW, Criterion, Figures
from service.evaluation.metrics import adherence_gain, kid, kid_kernel, mean, style_gain
from service.evaluation.missing import doubt_of_distance, doubt_of_mean
from service.evaluation.resampling import Bootstrap
from service.evaluation.sample import Sample
from service.settings.evaluate import EvaluateSettings

FEATURES = "champion_features"
SCORES = "champion_clip_scores"


def _measure_style(sample: Sample) -> Mapping[str, ArrayLike]:
    return {
        "held_out_features": sample.held_out_features,
        "lora_features": sample.features.lora,
        FEATURES: sample.champion_features,
    }


def _style(measurements: Measurements, settings: EvaluateSettings) -> Figures:
    reference, champion, lora = (measurements.arrays[name] for name in ("held_out_features", FEATURES, "lora_features"))
    prompts = measurements.of.prompts
    gain = style_gain(reference, champion, lora, prompts, Bootstrap(settings.confidence))
    doubt = doubt_of_distance(kid_kernel, reference, champion, lora, prompts)
    return Figures(kid(reference, champion), kid(reference, lora), gain, doubt)


# A new LoRA that is as good as the champion may replace it: it has seen newer images. To ask for more, the interval wholly
# above 0, would keep out nearly all that are only a little better.
CHAMPION_STYLE = Criterion(
    name="champion_style",
    title="Distance to the style, against the champion",
    explanation="As above (KID), with the pictures of the reigning champion in the place of the base's.",
    measure=_measure_style,
    figures=_style,
    threshold=lambda settings: -settings.champion_style_margin,
    rule=NOT_BELOW,
    clauses={
        "promote": "the style is as near as the champion's, gain {gain} where {threshold:+.3g} is allowed",
        "hold": "the style may be farther away than the champion's, gain {gain} where {threshold:+.3g} is allowed",
        "reject": "the style is farther away than the champion's, gain {gain} where {threshold:+.3g} is allowed",
        "not finite": "the style gain against the champion is not finite, {gain}",
    },
    against="champion",
)


def _measure_scores(sample: Sample) -> Mapping[str, ArrayLike]:
    return {"lora_clip_scores": np.asarray(sample.clip_scores.lora), SCORES: np.asarray(sample.champion_clip_scores)}


def _adherence(measurements: Measurements, settings: EvaluateSettings) -> Figures:
    champion, lora = (measurements.arrays[name] for name in (SCORES, "lora_clip_scores"))
    of = measurements.of
    gain = adherence_gain(champion, lora, of.prompts, Bootstrap(settings.confidence))
    return Figures(mean(champion), mean(lora), gain, doubt_of_mean(lora - champion, of.prompts, len(of.held_out)))


CHAMPION_ADHERENCE = Criterion(
    name="champion_adherence",
    title="Following the prompt, against the champion",
    explanation="CLIPScore as above, with the pictures of the reigning champion in the place of the base's.",
    measure=_measure_scores,
    figures=_adherence,
    threshold=lambda settings: -settings.adherence_margin,
    rule=NOT_BELOW,
    clauses={
        "promote": "the prompts are followed as by the champion, CLIPScore {gain} where {threshold:+.3g} is allowed",
        "hold": "the prompts may be followed less than by the champion, CLIPScore {gain} where {threshold:+.3g} is allowed",
        "reject": "the prompts are followed less than by the champion, CLIPScore {gain} where {threshold:+.3g} is allowed",
        "not finite": "the adherence gain against the champion is not finite, {gain}",
    },
    against="champion",
)
