"""Pictures of what the LoRA does to the base model, drawn while the frozen models are long gone from memory."""

from collections.abc import Sequence

import torch
from diffusers import DDIMScheduler, DDPMScheduler, StableDiffusionPipeline
from PIL import Image
from torch import Tensor

from service.diffusion.drawing.grid import comparison_grid
from service.diffusion.sd15.components import load_vae
from service.diffusion.sd15.denoiser import Denoiser
from service.settings.train import TrainSettings
from service.storage.parallel import StopCheck, never_stop
from service.training.encoded.loading import Prompts


def sample_prompts(settings: TrainSettings, captions: Sequence[str]) -> list[str]:
    """What the pictures show: what the settings say, or the first of the held-out captions."""
    if not settings.samples:
        return []
    return (settings.sample_prompts or list(dict.fromkeys(captions)))[: settings.samples]


@torch.no_grad()
def sample_grid(
    denoiser: Denoiser,
    noise_scheduler: DDPMScheduler,
    prompts: Prompts,
    shown: Sequence[str],
    settings: TrainSettings,
    stop_check: StopCheck = never_stop,
) -> Image.Image:
    """The base model's pictures over the LoRA's, of the same prompts and seeds. The autoencoder comes back for them only.

    `stop_check` is called after each denoising step, and may raise to end it.
    """
    device = next(denoiser.parameters()).device
    pipeline = StableDiffusionPipeline(
        vae=load_vae(settings).to(device),
        text_encoder=None,
        tokenizer=None,
        unet=denoiser.unet,
        scheduler=DDIMScheduler.from_config(noise_scheduler.config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    models = [model for model in (denoiser.unet, denoiser.text_encoder) if model is not None]
    training = denoiser.training
    denoiser.eval()
    styled = [draw_sample(pipeline, denoiser, prompts, prompt, settings, stop_check) for prompt in shown]
    for model in models:
        model.disable_adapters()
    try:
        base = [draw_sample(pipeline, denoiser, prompts, prompt, settings, stop_check) for prompt in shown]
    finally:
        for model in models:
            model.enable_adapters()
        denoiser.train(training)
    return comparison_grid(shown, [[picture] for picture in base], [[picture] for picture in styled])


def draw_sample(
    pipeline: StableDiffusionPipeline,
    denoiser: Denoiser,
    prompts: Prompts,
    prompt: str,
    settings: TrainSettings,
    stop_check: StopCheck,
) -> Image.Image:
    device = pipeline.vae.device

    def after_step(_: object, __: int, ___: object, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        stop_check()
        return tensors

    def states_of(text: str) -> Tensor:
        condition = prompts[text].to(device)
        return condition if denoiser.text_encoder is None else denoiser.text_encoder(condition)[0]

    latents = pipeline(
        prompt_embeds=states_of(prompt).to(denoiser.unet.dtype),
        negative_prompt_embeds=states_of("").to(denoiser.unet.dtype),
        generator=torch.Generator().manual_seed(settings.seed),
        num_inference_steps=settings.sample_steps,
        guidance_scale=settings.sample_guidance,
        height=settings.resolution,
        width=settings.resolution,
        output_type="latent",
        callback_on_step_end=after_step,
    ).images
    # The autoencoder stays in float32, whatever the U-Net's precision is.
    decoded = pipeline.vae.decode(latents.float() / pipeline.vae.config["scaling_factor"]).sample
    return pipeline.image_processor.postprocess(decoded, output_type="pil")[0]
