"""Stable Diffusion 1.x for drawing, as diffusers has it."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from diffusers.utils.logging import disable_progress_bar
from PIL import Image

from service.diffusion.drawing.requests import Drawing, Request
from service.diffusion.models import loading, locate_model
from service.diffusion.sd15.components import Components
from service.diffusion.sd15.denoiser import UNetDenoiser
from service.diffusion.sd15.latents import load_vae
from service.diffusion.sd15.lora_files import WEIGHTS_NAME
from service.diffusion.sd15.noise import DDPMNoise
from service.exits import BadData
from service.settings.models import DiffusionSettings
from service.storage.parallel import StopCheck

ADAPTER = "style"


class SD15Pipeline:
    """The `Pipeline` of the family, around diffusers' own."""

    def __init__(self, pipeline: StableDiffusionPipeline) -> None:
        self._pipeline = pipeline

    @property
    def device(self) -> torch.device:
        """Where it draws."""
        device: torch.device = self._pipeline.device
        return device

    @property
    def parts(self) -> Components:
        """The pipeline's models, with the scheduler of the training in place of the one that draws."""
        p = self._pipeline
        noise_scheduler = DDPMNoise(DDPMScheduler.from_config(p.scheduler.config))
        return Components(p.tokenizer, p.text_encoder, p.vae, p.unet, noise_scheduler)

    @property
    def denoiser(self) -> UNetDenoiser:
        """The U-Net alone: a LoRA of the text encoder is in the conditions that `parts` give."""
        return UNetDenoiser(self._pipeline.unet)

    def autocast(self) -> AbstractContextManager[object]:
        """None on a CPU, where all is float32."""
        dtype = self._pipeline.dtype
        return torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32)

    @torch.no_grad()
    def draw(self, requests: Sequence[Request], drawing: Drawing, stop_check: StopCheck) -> list[Image.Image]:
        """One batch; `stop_check` is called after each step of denoising."""

        def on_step_end(*_: Any) -> dict[str, Any]:
            stop_check()
            return {}

        drawn: list[Image.Image] = self._pipeline(
            prompt=[request.prompt for request in requests],
            negative_prompt=[drawing.negative_prompt] * len(requests),
            generator=[torch.Generator().manual_seed(request.seed) for request in requests],
            num_inference_steps=drawing.steps,
            guidance_scale=drawing.guidance,
            height=drawing.resolution,
            width=drawing.resolution,
            callback_on_step_end=on_step_end,
            callback_on_step_end_tensor_inputs=[],
        ).images
        return drawn

    def put_on_lora(self, folder: Path, scale: float = 1.0) -> None:
        """The file for diffusers in `folder`, at this strength; raises BadData when it does not fit the base model."""
        try:
            self._pipeline.load_lora_weights(
                str(folder), weight_name=WEIGHTS_NAME, adapter_name=ADAPTER, local_files_only=True
            )
            self._pipeline.set_adapters([ADAPTER], [scale])
        except (OSError, ValueError, RuntimeError) as error:
            raise BadData(
                f"the LoRA {folder / WEIGHTS_NAME} does not fit the base model: {str(error).splitlines()[0]}"
            ) from error


def open_pipeline(settings: DiffusionSettings) -> SD15Pipeline:
    """MODEL_BASE on the best device there is, in half precision on a GPU. Raises MissingInput, BadData, BadConfiguration."""
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
    return SD15Pipeline(pipeline.to(device, dtype))
