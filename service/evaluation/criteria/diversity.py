"""Does the LoRA still draw different pictures of one prompt?"""

from service.artifacts.kinds.measurements import Measurements
from service.evaluation.criteria.criterion import NOT_BELOW, Criterion, Figures, at_most_lost
from service.evaluation.criteria.embeddings import measure_embeddings
from service.evaluation.diversity import diversity, diversity_gain
from service.evaluation.resampling import Bootstrap
from service.settings.evaluate import EvaluateSettings


def _figures(measurements: Measurements, settings: EvaluateSettings) -> Figures | None:
    base, lora = (measurements.arrays[f"{side}_embeddings"] for side in ("base", "lora"))
    prompts = measurements.of.prompts
    if measurements.of.variations < 2:
        return None
    gain = diversity_gain(base, lora, prompts, Bootstrap(settings.confidence))
    return Figures(diversity(base, prompts), diversity(lora, prompts), gain)


DIVERSITY = Criterion(
    name="diversity",
    title="Diversity across seeds",
    explanation="Mean distance, 1 − cosine of CLIP embeddings, of two pictures of one prompt; the gain is LoRA / base − 1.",
    measure=measure_embeddings,
    figures=_figures,
    threshold=lambda settings: at_most_lost(settings.diversity_margin),
    rule=NOT_BELOW,
    clauses={
        "promote": "the pictures of one prompt stay diverse, {gain} where {threshold:+.3g} is allowed",
        "hold": "the pictures of one prompt may be less diverse, {gain} where {threshold:+.3g} is allowed",
        "reject": "the pictures of one prompt are less diverse, {gain} where {threshold:+.3g} is allowed",
        "not finite": "the gain in diversity is not finite, {gain}",
        "not measured": "the diversity is not known of one seed a prompt",
    },
)
