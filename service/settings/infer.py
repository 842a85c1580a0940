"""Settings of `sdlora infer`."""

from pydantic import Field

from service.settings.common import ModelSettings, StringList, prefixed


class InferSettings(ModelSettings):
    """Draws images with the base model and with the LoRA, at the same seeds."""

    model_config = prefixed("infer")

    prompts: StringList = Field(
        ["8-bit illustration, a red apple", "8-bit illustration, a cat", "8-bit illustration, a car"],
        min_length=1,
        description="What to draw: a prompt a line (or separated by commas when none of them has one and there is one line).",
    )
    variations: int = Field(3, gt=0, description="Images a prompt.")
    lora: str | None = Field(
        None, description="Path of the LoRA below ARTIFACTS_URI; without it, the one that this run trained."
    )
    lora_scale: float = Field(1.0, ge=0, le=2, description="Strength of the LoRA.")
    negative_prompt: str = Field("", description="What not to draw.")
    steps: int = Field(30, gt=0, description="Denoising steps.")
    guidance: float = Field(7.5, ge=0, description="Classifier-free guidance scale.")
    resolution: int | None = Field(
        None, gt=0, multiple_of=8, description="Side of the images in pixels; without it, the model's own."
    )
    batch_size: int = Field(4, gt=0, description="Images drawn at once.")
    seed: int = Field(0, ge=0, description="Seed of the first variation; the next ones count up.")
