"""Are the pictures more like the held-out images?"""

from service.artifacts.kinds.measurements import Measurements
from service.evaluation.criteria.criterion import ABOVE, Criterion, Figures
from service.evaluation.criteria.embeddings import measure_embeddings
from service.evaluation.metrics import similarity, similarity_gain
from service.evaluation.missing import doubt_of_similarity
from service.evaluation.resampling import Bootstrap
from service.settings.evaluate import EvaluateSettings


def _figures(measurements: Measurements, settings: EvaluateSettings) -> Figures:
    reference, base, lora = (measurements.arrays[f"{side}_embeddings"] for side in ("held_out", "base", "lora"))
    prompts = measurements.of.prompts
    gain = similarity_gain(reference, base, lora, prompts, Bootstrap(settings.confidence))
    doubt = doubt_of_similarity(reference, base, lora, prompts)
    return Figures(similarity(reference, base), similarity(reference, lora), gain, doubt)


SIMILARITY = Criterion(
    name="similarity",
    title="Likeness to the held-out images",
    explanation="CLIP-I: mean cosine, −1 to 1, of each generated image to each held-out one by their CLIP embeddings.",
    measure=measure_embeddings,
    figures=_figures,
    threshold=lambda settings: settings.similarity_gain,
    rule=ABOVE,
    clauses={
        "promote": "the pictures are more like the held-out images, gain {gain}",
        "hold": "the pictures may be no more like the held-out images, gain {gain}",
        "reject": "the pictures are no more like the held-out images, gain {gain}",
        "not finite": "the gain in likeness is not finite, {gain}",
    },
)
