"""Drawing: prompts and seeds in, pictures out, with the base model and with the LoRA on it."""

from collections.abc import Sequence

import structlog
import torch
from PIL import Image

from service import stopping
from service.diffusion.drawing.kept_pictures import KeptPictures
from service.diffusion.drawing.requests import Drawing, Request
from service.diffusion.family import Pipeline
from service.exits import OutOfDeviceMemory, out_of_memory
from service.logs import progress_bar

log = structlog.get_logger(__name__)


@torch.no_grad()
def draw_pictures(
    pipeline: Pipeline, requests: Sequence[Request], drawing: Drawing, what: str, kept: KeptPictures
) -> list[Image.Image]:
    """Draws every request with a generator of its own, so a picture does not depend on its neighbours in the batch.

    A batch that is finished is kept, and not drawn again by the next start. The batches are the same ones then, because
    the size of a batch decides the order of floating-point sums; where the device has no memory for one, its pictures are
    drawn in halves from then on, which is told. Raises Stopped when a stop was requested, after a step of denoising: the batch
    under way would often outlast the time that is left. Raises OutOfDeviceMemory when one picture is too much.
    """
    pictures: list[Image.Image] = []
    size = drawing.batch_size
    if kept:
        log.info("pictures kept", what=what, kept=len(kept), of=len(requests))
    numbers = range(len(requests))
    batches = [numbers[i : i + drawing.batch_size] for i in range(0, len(requests), drawing.batch_size)]
    for batch in progress_bar(stopping.interruptible(batches), what, len(batches)):
        known = kept.pictures(batch)
        if known is None:
            known, size = _draw_in_parts(pipeline, [requests[number] for number in batch], drawing, size)
            kept.keep(batch, known)
        pictures += known
    return pictures


def _draw_in_parts(
    pipeline: Pipeline, requests: Sequence[Request], drawing: Drawing, size: int
) -> tuple[list[Image.Image], int]:
    """The pictures, `size` at once or as many as fit; and how many that are."""
    pictures: list[Image.Image] = []
    while left := requests[len(pictures) :]:
        drawn: list[Image.Image] = []
        try:
            drawn = pipeline.draw(left[:size], drawing, stopping.check)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if size == 1:
                raise OutOfDeviceMemory(
                    "one picture needs more device memory than there is; set a smaller resolution, or take a larger GPU"
                ) from error
        if not drawn:  # outside of the handler, which keeps the tensors of the failed batch alive
            size = (min(size, len(left)) + 1) // 2
            torch.cuda.empty_cache()
            log.warning("drawing in smaller batches", size=size, pictures="may differ in the last bit")
        pictures += drawn
    return pictures, size
