"""Pictures by the U-Net that is being trained, while the frozen models are long gone from memory."""

from collections.abc import Callable

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from torch import Tensor

from service.diffusion.family import Condition, NoiseScheduler
from service.diffusion.sd15.latents import load_vae
from service.settings.train import TrainSettings
from service.stopping import StopCheck


class UNetSampler:
    """A `Sampler` of a family. `states_of` gives what the U-Net attends to, (1, L, D), for a condition."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        states_of: Callable[[Condition], Tensor],
        noise_scheduler: NoiseScheduler,
        settings: TrainSettings,
    ) -> None:
        self._settings = settings
        self._states_of = states_of
        self._pipeline = StableDiffusionPipeline(
            vae=load_vae(settings).to(unet.device),
            text_encoder=None,
            tokenizer=None,
            unet=unet,
            scheduler=DDIMScheduler.from_config(noise_scheduler.config),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        self._pipeline.set_progress_bar_config(disable=True)

    @torch.no_grad()
    def __call__(self, condition: Condition, empty: Condition, stop_check: StopCheck) -> Image.Image:
        """One picture. condition, empty: of the prompt and of the empty prompt, each a batch of 1."""
        pipeline, settings = self._pipeline, self._settings

        def on_step_end(_: object, __: int, ___: object, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            stop_check()
            return tensors

        latents = pipeline(
            prompt_embeds=self._states(condition),
            negative_prompt_embeds=self._states(empty),
            generator=torch.Generator().manual_seed(settings.seed),
            num_inference_steps=settings.sample_steps,
            guidance_scale=settings.sample_guidance,
            height=settings.resolution,
            width=settings.resolution,
            output_type="latent",
            callback_on_step_end=on_step_end,
        ).images
        # The autoencoder stays in float32, whatever the U-Net's precision is.
        decoded = pipeline.vae.decode(latents.float() / pipeline.vae.config["scaling_factor"]).sample
        picture: Image.Image = pipeline.image_processor.postprocess(decoded, output_type="pil")[0]
        return picture

    def _states(self, condition: Condition) -> Tensor:
        unet = self._pipeline.unet
        return self._states_of({name: tensor.to(unet.device) for name, tensor in condition.items()}).to(unet.dtype)
