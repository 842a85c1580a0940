"""Stable Diffusion 1.x for drawing, as diffusers has it."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from diffusers.utils.logging import disable_progress_bar
from peft.tuners.lora import LoraLayer
from PIL import Image
from torch import nn

from service.diffusion.drawing.requests import Drawing, Request
from service.diffusion.lora import WEIGHTS_NAME, check_lora
from service.diffusion.models import loading, locate_model
from service.diffusion.sd15.components import Components
from service.diffusion.sd15.denoiser import UNetDenoiser
from service.diffusion.sd15.latents import load_vae
from service.diffusion.sd15.noise import DDPMNoise
from service.exits import BadData
from service.settings.models import DiffusionSettings
from service.stopping import StopCheck

ADAPTER = "style"
SAMPLERS = {
    "PNDMScheduler": "PLMS",
    "LMSDiscreteScheduler": "LMS",
    "EulerDiscreteScheduler": "Euler",
    "EulerAncestralDiscreteScheduler": "Euler a",
    "HeunDiscreteScheduler": "Heun",
    "DPMSolverMultistepScheduler": "DPM++ 2M",
    "UniPCMultistepScheduler": "UniPC",
}
"""What A1111 calls diffusers' schedulers; others have the same name in both."""


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

    @property
    def sampler(self) -> str:
        """The scheduler's name as A1111 has it, and its own where A1111 has none."""
        scheduler = type(self._pipeline.scheduler).__name__
        return SAMPLERS.get(scheduler, scheduler.removesuffix("Scheduler"))

    def autocast(self) -> AbstractContextManager[object]:
        """None on a CPU, where all is float32."""
        dtype = self._pipeline.unet.dtype
        return torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32)

    @torch.no_grad()
    def draw(self, requests: Sequence[Request], drawing: Drawing, stop_check: StopCheck) -> list[Image.Image]:
        """One batch; `stop_check` is called after each step of denoising. Raises BadData for a picture that is not finite."""

        def on_step_end(*_: Any) -> dict[str, Any]:
            stop_check()
            return {}

        drawn = self._pipeline(
            prompt=[request.prompt for request in requests],
            negative_prompt=[drawing.negative_prompt] * len(requests),
            generator=[torch.Generator().manual_seed(request.seed) for request in requests],
            num_inference_steps=drawing.steps,
            guidance_scale=drawing.guidance,
            height=drawing.resolution,
            width=drawing.resolution,
            callback_on_step_end=on_step_end,
            callback_on_step_end_tensor_inputs=[],
            output_type="latent",
        ).images
        vae, processor = self._pipeline.vae, self._pipeline.image_processor
        decoded = vae.decode(drawn.to(vae.dtype) / vae.config["scaling_factor"]).sample
        drawn = processor.postprocess(decoded, output_type="np")
        if not np.isfinite(drawn).all():
            # They would be drawn black, with a warning at most.
            raise BadData("the model draws pictures that are not finite; nothing is published of them")
        pictures: list[Image.Image] = processor.numpy_to_pil(drawn)
        return pictures

    @torch.no_grad()
    def reconstruct(self, images: Sequence[Image.Image]) -> list[Image.Image]:
        """One at a time, by the means of the posteriors."""
        vae, processor = self._pipeline.vae, self._pipeline.image_processor
        reconstructed: list[Image.Image] = []
        for image in images:
            pixels = processor.preprocess(image).to(vae.device, vae.dtype)
            decoded = vae.decode(vae.encode(pixels).latent_dist.mode()).sample
            reconstructed += processor.postprocess(decoded)
        return reconstructed

    def put_on_lora(self, folder: Path, scale: float = 1.0) -> None:
        """The file for diffusers in `folder`, at this strength; raises BadData when it does not fit the base model.

        At 0 the model stays bit for bit the base; in between, and beyond 1, all changes of weights are as many times those of
        the LoRA at 1, of whatever kind it is.
        """
        file = folder / WEIGHTS_NAME
        check_lora(file)
        if scale == 0:
            return
        try:
            self._pipeline.load_lora_weights(
                str(folder), weight_name=WEIGHTS_NAME, adapter_name=ADAPTER, local_files_only=True
            )
            self._pipeline.set_adapters([ADAPTER], [scale])
        except (OSError, ValueError, RuntimeError) as error:
            raise BadData(f"the LoRA {file} does not fit the base model: {str(error).splitlines()[0]}") from error
        if scale != 1:
            _interpolate_decomposed(self._pipeline.unet, scale)


@torch.no_grad()
def _interpolate_decomposed(unet: nn.Module, scale: float) -> None:
    """Puts the layers with a magnitude (DoRA) at W + scale·(W′ − W), where W′ are their weights at full strength.

    PEFT scales the direction alone and keeps the magnitude: at a strength near 0, the weights would still be W times the
    ratio of two lengths. Programs that merge (ComfyUI) interpolate like this.
    """
    for layer in unet.modules():
        if isinstance(layer, LoraLayer) and layer.use_dora.get(ADAPTER):
            weight = layer.get_base_layer().weight
            before = weight.detach().clone()
            layer.set_scale(ADAPTER, 1.0)
            layer.merge(adapter_names=[ADAPTER])
            weight.copy_(before + scale * (weight - before))


def open_pipeline(settings: DiffusionSettings) -> SD15Pipeline:
    """MODEL_BASE on the best device there is, in half precision on a GPU. Raises MissingInput, BadData, BadConfiguration."""
    disable_progress_bar()  # ours are for the work that takes time
    files = locate_model(settings, "model_base")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    half = torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float16
    dtype = half if device.type == "cuda" else torch.float32
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
    return placed(pipeline, device, dtype)


def placed(pipeline: StableDiffusionPipeline, device: torch.device, dtype: torch.dtype) -> SD15Pipeline:
    """Diffusers' pipeline, to draw there and so; its autoencoder in float32 where all else is in float16.

    The activations of some autoencoders are larger than float16 can hold (65,504): they would draw black pictures.
    """
    pipeline.to(device, dtype)
    if dtype == torch.float16:
        pipeline.vae.to(dtype=torch.float32)
    return SD15Pipeline(pipeline)
