"""Settings of `sdlora infer`."""

from typing import Self

from pydantic import model_validator

from service.settings.base import MOST_PIXELS, MOST_STEPS, Text, check_seeds
from service.settings.common import TextList, prefixed
from service.settings.declaring import decides
from service.settings.models import DiffusionSettings
from service.settings.places import LoraPath


class InferSettings(DiffusionSettings):
    """Draws images with the base model and with the LoRA, at the same seeds."""

    model_config = prefixed("infer")

    prompts: TextList = decides(
        ["8-bit illustration, a red apple", "8-bit illustration, a cat", "8-bit illustration, a car"],
        stage="drawing",
        min_length=1,
        description="What to draw: a prompt a line (or separated by commas when none of them has one and there is one line).",
    )
    variations: int = decides(3, stage="drawing", gt=0, le=100_000, description="Images a prompt.")
    lora: LoraPath | None = decides(
        None,
        stage="drawing",
        description="Path of the LoRA below ARTIFACTS_URI, or a LoRA file from elsewhere (a local or s3:// path that ends in "
        ".safetensors), or registry: and the name of a model, for its champion; without it, the one that this run trained.",
    )
    lora_scale: float = decides(
        1.0,
        stage="drawing",
        ge=0,
        le=2,
        description="Strength of the LoRA; of a champion, without it, the one that it was promoted with.",
    )
    negative_prompt: Text = decides("", stage="drawing", description="What not to draw.")
    steps: int = decides(30, stage="drawing", gt=0, le=MOST_STEPS, description="Denoising steps.")
    guidance: float = decides(7.5, stage="drawing", ge=0, description="Classifier-free guidance scale.")
    resolution: int | None = decides(
        None,
        stage="drawing",
        gt=0,
        le=MOST_PIXELS,
        multiple_of=8,
        description="Side of the images in pixels; without it, the model's own.",
    )
    batch_size: int = decides(4, stage="drawing", gt=0, description="Images drawn at once.")
    seed: int = decides(0, stage="drawing", ge=0, description="Seed of the first variation; the next ones count up.")

    @model_validator(mode="after")
    def _the_last_seed_is_one(self) -> Self:
        check_seeds("INFER", self.seed, self.variations)
        return self
