"""Drawing: prompts and seeds in, pictures out, with the base model and with the LoRA on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils.logging import disable_progress_bar
from PIL import Image

from service import stopping
from service.diffusion.drawing.kept_pictures import KeptPictures
from service.diffusion.models import loading, locate_model
from service.diffusion.sd15.components import load_vae
from service.diffusion.sd15.lora_files import WEIGHTS_NAME
from service.exits import BadData
from service.logs import progress_bar
from service.settings.models import DiffusionSettings

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Request:
    """One picture to draw."""

    prompt: str
    seed: int


@dataclass(frozen=True)
class Drawing:
    """How to draw. `resolution` in pixels, None for the model's own; `batch_size` pictures at once."""

    steps: int
    guidance: float
    resolution: int | None
    batch_size: int
    negative_prompt: str = ""


def requests_for(prompts: Sequence[str], variations: int, seed: int) -> list[Request]:
    """Every prompt with the seeds seed, seed + 1, …, prompt by prompt."""
    return [Request(prompt, seed + variation) for prompt in prompts for variation in range(variations)]


def by_prompt(pictures: Sequence[Image.Image], variations: int) -> list[list[Image.Image]]:
    """Pictures of `requests_for`, grouped again: the variations of a prompt in one list."""
    return [list(pictures[i : i + variations]) for i in range(0, len(pictures), variations)]


def open_pipeline(settings: DiffusionSettings) -> StableDiffusionPipeline:
    """The base model on the best device there is, in half precision on a GPU."""
    disable_progress_bar()  # ours are for the work that takes time
    files = locate_model(settings, "model_base")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    half = torch.bfloat16 if device == "cuda" and torch.cuda.is_bf16_supported() else torch.float16
    dtype = half if device == "cuda" else torch.float32
    with loading(files):
        pipeline = StableDiffusionPipeline.from_pretrained(
            files.name,
            vae=load_vae(settings),
            safety_checker=None,
            requires_safety_checker=False,
            dtype=dtype,
            **files.options,
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device, dtype)


def put_on_lora(pipeline: StableDiffusionPipeline, folder: Path, scale: float = 1.0) -> None:
    """Loads the LoRA of a published folder; raises BadData when it does not fit the base model."""
    try:
        pipeline.load_lora_weights(str(folder), weight_name=WEIGHTS_NAME, adapter_name="style", local_files_only=True)
        pipeline.set_adapters(["style"], [scale])
    except (OSError, ValueError, RuntimeError) as error:
        raise BadData(
            f"the LoRA {folder / WEIGHTS_NAME} does not fit the base model: {str(error).splitlines()[0]}"
        ) from error


@torch.no_grad()
def draw_pictures(
    pipeline: StableDiffusionPipeline, requests: Sequence[Request], drawing: Drawing, what: str, kept: KeptPictures
) -> list[Image.Image]:
    """Draws every request with a generator of its own, so a picture does not depend on its neighbours in the batch.

    A batch that is finished is kept, and not drawn again by the next start. The batches are the same ones then, because
    the size of a batch decides the order of floating-point sums. Raises Stopped when the process was told to stop,
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
            known = draw_batch(pipeline, [requests[number] for number in batch], drawing)
            kept.keep(batch, known)
        pictures += known
    return pictures


def draw_batch(pipeline: StableDiffusionPipeline, requests: Sequence[Request], drawing: Drawing) -> list[Image.Image]:
    def check(*_: Any) -> dict[str, Any]:
        stopping.check()
        return {}

    drawn: list[Image.Image] = pipeline(
        prompt=[request.prompt for request in requests],
        negative_prompt=[drawing.negative_prompt] * len(requests),
        generator=[torch.Generator().manual_seed(request.seed) for request in requests],
        num_inference_steps=drawing.steps,
        guidance_scale=drawing.guidance,
        height=drawing.resolution,
        width=drawing.resolution,
        callback_on_step_end=check,
        callback_on_step_end_tensor_inputs=[],
    ).images
    return drawn
