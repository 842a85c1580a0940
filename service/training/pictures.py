"""Pictures of what the LoRA does to the base model, drawn while the frozen models are long gone from memory."""

from collections.abc import Sequence

import torch
from PIL import Image

from service.diffusion.drawing.grid import comparison_grid
from service.diffusion.family import Denoiser, NoiseScheduler
from service.diffusion.lora import without_adapter
from service.settings.train import TrainSettings
from service.stopping import StopCheck, never_stop
from service.training.encoded.loading import Prompts


def sample_prompts(settings: TrainSettings, captions: Sequence[str]) -> list[str]:
    """What the pictures show: what the settings say, or the first of the held-out captions."""
    if not settings.samples:
        return []
    return (settings.sample_prompts or list(dict.fromkeys(captions)))[: settings.samples]


@torch.no_grad()
def sample_grid(
    denoiser: Denoiser,
    noise_scheduler: NoiseScheduler,
    prompts: Prompts,
    shown: Sequence[str],
    settings: TrainSettings,
    stop_check: StopCheck = never_stop,
) -> Image.Image:
    """The base model's pictures over the LoRA's, of the same prompts and seed.

    `stop_check` is called after each denoising step, and may raise to end it.
    """
    sampler = denoiser.sampler(noise_scheduler, settings)
    training = denoiser.training
    denoiser.eval()
    try:
        styled = [[sampler(prompts[prompt], prompts[""], stop_check)] for prompt in shown]
        with without_adapter(denoiser):
            base = [[sampler(prompts[prompt], prompts[""], stop_check)] for prompt in shown]
    finally:
        denoiser.train(training)
    return comparison_grid(shown, base, styled)
