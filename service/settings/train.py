"""Settings of `sdlora train`, and its profiles."""

from typing import Any, Literal

from pydantic import Field, model_validator

from service.settings.common import ModelSettings, StringList, prefixed

ATTENTION = ["to_k", "to_q", "to_v", "to_out.0"]
FEED_FORWARD = ["ff.net.0.proj", "ff.net.2"]

# A profile is a set of defaults; a variable that is set overrides it. `report` is the published recipe, value for value.
PROFILES: dict[str, dict[str, Any]] = {
    "report": {
        "rank": 4,
        "lora_alpha": 4,
        "init": "gaussian",
        "target_modules": ATTENTION,
        "learning_rate": 1e-4,
        "weight_decay": 1e-2,
        "lr_scheduler": "cosine",
        "lr_warmup_steps": 0,
        "max_grad_norm": 1.0,
        "batch_size": 2,
        "resolution": 1024,
        "random_flip": 0.5,
        "caption_dropout": 0.0,
        "min_snr_gamma": None,
        "noise_offset": 0.0,
        "max_steps": 10_000,
        "checkpoint_every": 5_000,
    },
    "recommended": {
        "rank": 16,
        "lora_alpha": 16,
        "init": "kaiming",
        "target_modules": ATTENTION + FEED_FORWARD,
        "learning_rate": 1e-4,
        "weight_decay": 1e-2,
        "lr_scheduler": "cosine",
        "lr_warmup_steps": 100,
        "max_grad_norm": 1.0,
        "batch_size": 8,
        "resolution": 512,
        "random_flip": 0.5,
        "caption_dropout": 0.05,
        "min_snr_gamma": None,
        "noise_offset": 0.0,
        "max_steps": 3_000,
        "checkpoint_every": 500,
    },
    # The report's recipe at the size and in the time of the miniature: with its learning rate, so few steps move nothing.
    "miniature": {
        "rank": 4,
        "lora_alpha": 4,
        "init": "gaussian",
        "target_modules": ATTENTION,
        "learning_rate": 2e-3,
        "weight_decay": 1e-2,
        "lr_scheduler": "cosine",
        "lr_warmup_steps": 0,
        "max_grad_norm": 1.0,
        "batch_size": 16,
        "resolution": 64,
        "random_flip": 0.5,
        "caption_dropout": 0.0,
        "min_snr_gamma": None,
        "noise_offset": 0.0,
        "max_steps": 200,
        "checkpoint_every": 50,
    },
}


class TrainSettings(ModelSettings):
    """Fine-tunes a LoRA on a published data set and publishes it."""

    model_config = prefixed("train")

    profile: Literal["report", "recommended", "miniature"] = Field(
        "report", description="Set of defaults for what follows; the defaults listed here are those of `report`."
    )
    dataset: str | None = Field(
        None,
        description="Path of the data set below ARTIFACTS_URI; without it, the one that data-prep made in this run.",
    )
    rank: int = Field(4, gt=0, le=1024, description="Rank r of the LoRA.")
    lora_alpha: float = Field(4, gt=0, description="Alpha of the LoRA; its effect is scaled by alpha / rank.")
    init: Literal["gaussian", "kaiming"] = Field("gaussian", description="Distribution of lora_A at the start.")
    target_modules: StringList = Field(ATTENTION, description="Modules of the U-Net that get a LoRA, by name ending.")
    learning_rate: float = Field(1e-4, gt=0, description="Peak learning rate of AdamW.")
    weight_decay: float = Field(1e-2, ge=0, description="Weight decay of AdamW.")
    lr_scheduler: Literal["cosine", "linear", "constant", "constant_with_warmup"] = Field(
        "cosine", description="Schedule of the learning rate."
    )
    lr_warmup_steps: int = Field(0, ge=0, description="Steps in which the learning rate rises from 0.")
    max_grad_norm: float = Field(1.0, gt=0, description="The gradient of the whole LoRA is clipped to this norm.")
    batch_size: int = Field(2, gt=0, description="Images in one step, over all processes together.")
    resolution: int = Field(
        1024, gt=0, multiple_of=8, description="Side of the square that images are resized and cropped to."
    )
    random_flip: float = Field(0.5, ge=0, le=1, description="Probability of mirroring an image.")
    caption_dropout: float = Field(0.0, ge=0, lt=1, description="Probability of training an image without its caption.")
    min_snr_gamma: float | None = Field(
        None,
        gt=0,
        description="Weighs easy timesteps down to this signal-to-noise ratio, 5 as a rule; without it, all alike.",
    )
    noise_offset: float = Field(
        0.0, ge=0, le=1, description="Strength of the noise that is the same all over a channel; it teaches brightness."
    )
    max_steps: int = Field(10_000, gt=0, description="Optimizer steps in the whole run.")
    checkpoint_every: int = Field(5_000, gt=0, description="Steps between two checkpoints.")
    seed: int = Field(0, ge=0, description="Seed of everything random in the run.")
    mixed_precision: Literal["auto", "no", "fp16", "bf16"] = Field(
        "auto", description="Precision of the frozen models; the LoRA is always fp32. auto: bf16 on a GPU that has it."
    )

    @model_validator(mode="before")
    @classmethod
    def _profile_sets_defaults(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        profile = PROFILES.get(str(values.get("train_profile", values.get("profile", "report"))), {})
        chosen = {name: value for name, value in profile.items() if not {name, f"train_{name}"} & values.keys()}
        return {**chosen, **values}
