"""The parts of a Stable Diffusion 1.x, each in the class that the recipe names."""

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import AutoTokenizer, CLIPTextModel, PreTrainedTokenizerBase

from service.diffusion.models import loading, locate_model
from service.settings.models import DiffusionSettings


@dataclass(frozen=True)
class Components:
    """Frozen, in evaluation mode, fp32, on the CPU: where they run and in which precision is the caller's decision."""

    tokenizer: PreTrainedTokenizerBase
    text_encoder: CLIPTextModel
    vae: AutoencoderKL
    unet: UNet2DConditionModel
    scheduler: DDPMScheduler


def load_components(settings: DiffusionSettings) -> Components:
    """Loads MODEL_BASE, with the autoencoder that MODEL_VAE names. Raises MissingInput, BadData or BadConfiguration."""
    base = locate_model(settings, "model_base")
    with loading(base):
        tokenizer = AutoTokenizer.from_pretrained(base.name, subfolder="tokenizer", **base.options)
        text_encoder = CLIPTextModel.from_pretrained(
            base.name, subfolder="text_encoder", dtype=torch.float32, **base.options
        )
        unet = UNet2DConditionModel.from_pretrained(base.name, subfolder="unet", dtype=torch.float32, **base.options)
        scheduler = DDPMScheduler.from_pretrained(base.name, subfolder="scheduler", **base.options)
    vae = load_vae(settings)
    for model in (text_encoder, unet, vae):
        model.requires_grad_(False).eval()
    return Components(tokenizer, text_encoder, vae, unet, scheduler)


def load_vae(settings: DiffusionSettings) -> AutoencoderKL:
    files = locate_model(settings, "model_vae")
    with loading(files):
        return AutoencoderKL.from_pretrained(files.name, dtype=torch.float32, **files.options)
