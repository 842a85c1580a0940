"""The parts of a Stable Diffusion 1.x, each in the class that the recipe names."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import AutoTokenizer, CLIPTextModel, PreTrainedTokenizerBase

from service.diffusion.family import Posterior
from service.diffusion.models import loading, locate_model
from service.diffusion.sd15.denoiser import UNetDenoiser
from service.diffusion.sd15.latents import encode_pixels, load_vae
from service.diffusion.sd15.lora import add_lora
from service.diffusion.sd15.noise import DDPMNoise
from service.diffusion.sd15.prompts import STATES, TOKENS, encode_prompt, tokenize_prompt
from service.settings.models import DiffusionSettings
from service.settings.train import TrainSettings


@dataclass(frozen=True)
class Components:
    """The `Parts` of the family; `load_components` gives them frozen, in evaluation mode, fp32, on the CPU."""

    tokenizer: PreTrainedTokenizerBase
    text_encoder: CLIPTextModel
    vae: AutoencoderKL
    unet: UNet2DConditionModel
    noise_scheduler: DDPMNoise

    @property
    def image_models(self) -> Sequence[nn.Module]:
        """The autoencoder."""
        return (self.vae,)

    @property
    def prompt_models(self) -> Sequence[nn.Module]:
        """The text encoder."""
        return (self.text_encoder,)

    @property
    def condition_names(self) -> Sequence[str]:
        """The text encoder's last hidden state alone."""
        return (STATES,)

    def encode_images(self, pixels: Tensor, names: Sequence[str]) -> Posterior:
        """pixels: (B, 3, H, W) in [-1, 1]; gives (B, C, H/f, W/f). Raises BadData for latents that are not finite."""
        return encode_pixels(self.vae, pixels, names)

    def encode_prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """The states, (B, 77, D) float32 on the CPU."""
        return {STATES: encode_prompt(self.text_encoder, tokenize_prompt(self.tokenizer, prompts)).float().cpu()}

    def tokenize_prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """The tokens, (B, 77) int64."""
        return {TOKENS: tokenize_prompt(self.tokenizer, prompts)}

    def trainable(self, settings: TrainSettings, dtype: torch.dtype) -> UNetDenoiser:
        """The U-Net in `dtype` with its LoRA; with TRAIN_TEXT_ENCODER the text encoder, float32, with one too."""
        text_encoder = self.text_encoder if settings.text_encoder else None
        if dtype != self.unet.dtype:
            self.unet.to(dtype=dtype)
        add_lora(self.unet, settings, text_encoder)
        return UNetDenoiser(self.unet, text_encoder)


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
    return Components(tokenizer, text_encoder, vae, unet, DDPMNoise(scheduler))
