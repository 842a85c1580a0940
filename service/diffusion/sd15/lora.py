"""Where the adapter of a Stable Diffusion 1.x sits."""

from diffusers import UNet2DConditionModel
from transformers import CLIPTextModel

from service.diffusion.lora import add_adapter, check_targets
from service.settings.train import TrainSettings

TEXT_ENCODER_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")


def add_lora(unet: UNet2DConditionModel, settings: TrainSettings, text_encoder: CLIPTextModel | None = None) -> None:
    """Freezes the models and injects a LoRA in float32; raises BadConfiguration for a target module that there is not."""
    check_targets(unet, settings.target_modules, "the U-Net")
    add_adapter(unet, settings.target_modules, settings, dora=settings.dora)
    if text_encoder is not None:
        # Without DoRA: transformers does not read magnitudes back, the LoRA would not be the one that was trained.
        add_adapter(text_encoder, TEXT_ENCODER_TARGETS, settings, dora=False)
