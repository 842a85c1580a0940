"""Are the pictures training images once more?"""

from collections.abc import Mapping

from numpy.typing import ArrayLike

from service.artifacts.kinds.measurements import Measurements
from service.evaluation.criteria.criterion import AT_MOST, NOT_BELOW, Criterion, Figures, at_most_lost
from service.evaluation.memorisation import ALIKE, look_distances, memorised_gain, near_limit, near_share, nearest
from service.evaluation.resampling import Bootstrap
from service.evaluation.sample import Sample
from service.settings.evaluate import EvaluateSettings

NEAREST = "lora_nearest_training"
COSINES = "lora_training_cosines"
NO_TRAINING = "it is not known whether training images are copied, because the data set has none"


def _measure(sample: Sample) -> Mapping[str, ArrayLike]:
    if not sample.training:
        return {}
    training = sample.learned.embeddings
    which, lora = nearest(sample.embeddings.lora, training)
    return {
        NEAREST: which,
        COSINES: lora,
        "base_training_cosines": nearest(sample.embeddings.base, training)[1],
        "held_out_training_cosines": nearest(sample.held_out_embeddings, training)[1],
    }


def _figures(measurements: Measurements, settings: EvaluateSettings) -> Figures | None:
    if COSINES not in measurements.arrays:
        return None
    held_out, base, lora = (measurements.arrays[f"{of}_training_cosines"] for of in ("held_out", "base", "lora"))
    limit = near_limit(held_out)
    gain = memorised_gain(held_out, base, lora, measurements.of.prompts, Bootstrap(settings.confidence))
    return Figures(near_share(base, limit), near_share(lora, limit), gain)


MEMORISATION = Criterion(
    name="memorisation",
    title="Nearness to training images",
    explanation="Share of the pictures that are nearer to a training image, by CLIP, than 99% of the held-out images are.",
    measure=_measure,
    figures=_figures,
    threshold=lambda settings: at_most_lost(settings.memorised_share),
    rule=NOT_BELOW,
    clauses={
        "promote": "training images are not drawn again, {gain} where {threshold:+.3g} is allowed",
        "hold": "training images may be drawn again, {gain} where {threshold:+.3g} is allowed",
        "reject": "training images are drawn again, {gain} where {threshold:+.3g} is allowed",
        "not finite": "the nearness to training images is not finite, {gain}",
        "not measured": NO_TRAINING,
    },
    unit="share",
)


def _measure_looks(sample: Sample) -> Mapping[str, ArrayLike]:
    if not sample.training:
        return {}
    looks = sample.learned.looks
    base, lora = (look_distances(side, looks) for side in sample.pictures)
    return {"base_look_distances": base, "lora_look_distances": lora}


def _figures_of_looks(measurements: Measurements, _: EvaluateSettings) -> Figures | None:
    if "lora_look_distances" not in measurements.arrays:
        return None
    base, lora = (float((measurements.arrays[f"{side}_look_distances"] <= ALIKE).sum()) for side in ("base", "lora"))
    return Figures(base, lora)


COPIES = Criterion(
    name="copies",
    title="Copies of training images",
    explanation="Number of the pictures that look like a training image, or its mirror image, by perceptual hashes and colour.",
    measure=_measure_looks,
    figures=_figures_of_looks,
    threshold=lambda settings: settings.copies,
    rule=AT_MOST,
    clauses={
        "promote": "{lora:.0f} pictures look like a training image",
        "reject": "{lora:.0f} pictures look like a training image where {threshold:.0f} are allowed",
        "not finite": "the number of copies is {lora}",
        "not measured": NO_TRAINING,
    },
    unit="count",
)
