"""Is the distance to the held-out images smaller for a CLIP, too?"""

from service.artifacts.kinds.measurements import Measurements
from service.evaluation.criteria.criterion import ABOVE, Criterion, Figures
from service.evaluation.criteria.embeddings import measure_embeddings
from service.evaluation.metrics import cmmd, cmmd_gain, cmmd_kernel
from service.evaluation.missing import doubt_of_distance
from service.evaluation.resampling import Bootstrap
from service.settings.evaluate import EvaluateSettings


def _figures(measurements: Measurements, settings: EvaluateSettings) -> Figures:
    reference, base, lora = (measurements.arrays[f"{side}_embeddings"] for side in ("held_out", "base", "lora"))
    prompts = measurements.of.prompts
    gain = cmmd_gain(reference, base, lora, prompts, Bootstrap(settings.confidence))
    doubt = doubt_of_distance(cmmd_kernel, reference, base, lora, prompts)
    return Figures(cmmd(reference, base), cmmd(reference, lora), gain, doubt)


CMMD = Criterion(
    name="cmmd",
    title="Distance by CLIP",
    explanation="CMMD between the CLIP embeddings of the generated and of the held-out images; 0 is the same distribution.",
    measure=measure_embeddings,
    figures=_figures,
    threshold=lambda settings: settings.cmmd_gain,
    rule=ABOVE,
    clauses={
        "promote": "the CLIP distance to the held-out images shrinks, gain {gain}",
        "hold": "the CLIP distance to the held-out images may not shrink, gain {gain}",
        "reject": "the CLIP distance to the held-out images does not shrink, gain {gain}",
        "not finite": "the gain in CLIP distance is not finite, {gain}",
    },
)
