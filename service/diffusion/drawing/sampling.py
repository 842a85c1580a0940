"""Drawing: prompts and seeds in, pictures out, with the base model and with the LoRA on it."""

from collections.abc import Sequence

import structlog
import torch
from PIL import Image

from service import stopping
from service.diffusion.drawing.kept_pictures import KeptPictures
from service.diffusion.drawing.requests import Drawing, Request
from service.diffusion.family import Pipeline
from service.logs import progress_bar

log = structlog.get_logger(__name__)


@torch.no_grad()
def draw_pictures(
    pipeline: Pipeline, requests: Sequence[Request], drawing: Drawing, what: str, kept: KeptPictures
) -> list[Image.Image]:
    """Draws every request with a generator of its own, so a picture does not depend on its neighbours in the batch.

    A batch that is finished is kept, and not drawn again by the next start. The batches are the same ones then, because
    the size of a batch decides the order of floating-point sums. Raises Stopped when a stop was requested,
    after a step of denoising: the batch under way would often outlast the time that is left.
    """
    pictures: list[Image.Image] = []
    if kept:
        log.info("pictures kept", what=what, kept=len(kept), of=len(requests))
    numbers = range(len(requests))
    batches = [numbers[i : i + drawing.batch_size] for i in range(0, len(requests), drawing.batch_size)]
    for batch in progress_bar(stopping.interruptible(batches), what, len(batches)):
        known = kept.pictures(batch)
        if known is None:
            known = pipeline.draw([requests[number] for number in batch], drawing, stopping.check)
            kept.keep(batch, known)
        pictures += known
    return pictures
