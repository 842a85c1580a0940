"""How near each image is to what was searched for, by a CLIP."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from PIL import Image

from service.dataset.candidates import Record
from service.diffusion.clip import BATCH, Clip
from service.diffusion.models import locate_model
from service.logs import progress_bar
from service.settings.data_prep import DataPrepSettings
from service.stopping import interruptible

DECIMALS = 2
"""Of the figures that are compared and stored: the last digits of a float depend on the batch that an image was in."""


def with_relevance(
    records: Sequence[Record], image_of: Callable[[Record], Image.Image], settings: DataPrepSettings
) -> list[Record]:
    """The records, the good ones with 100 · cos(image, query); the style stands for the query where there was no search.

    Raises MissingInput or BadData for a model that does not load.
    """
    good = [index for index, record in enumerate(records) if record.reason is None]
    clip = Clip(locate_model(settings, "model_clip"), "cuda" if torch.cuda.is_available() else "cpu")
    judged = list(records)
    batches = [good[start : start + BATCH] for start in range(0, len(good), BATCH)]
    for batch in progress_bar(interruptible(batches), "judging relevance", len(batches)):
        asked = [records[index].candidate.query or settings.style for index in batch]
        scores = clip.scores([image_of(records[index]) for index in batch], asked)
        for index, score in zip(batch, scores, strict=True):
            record = records[index]
            assert record.features is not None
            judged[index] = replace(record, features=replace(record.features, relevance=round(score, DECIMALS)))
    return judged
