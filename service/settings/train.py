"""Settings of `sdlora train`, and its profiles."""

import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, model_validator

from service.exits import BadConfiguration
from service.settings.base import MOST_PIXELS, MOST_STEPS, YEAR
from service.settings.common import StringList, TextList, prefixed
from service.settings.declaring import decides, only_how
from service.settings.models import DiffusionSettings
from service.settings.places import ArtifactPath

ATTENTION = ["to_k", "to_q", "to_v", "to_out.0"]
FEED_FORWARD = ["ff.net.0.proj", "ff.net.2"]
CONVOLUTIONS = ["conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv"]
GROUPS = {"attention": ATTENTION, "feed_forward": FEED_FORWARD, "convolutions": CONVOLUTIONS}


OPTIMIZERS = {"adamw8bit": "bitsandbytes", "prodigy": "prodigyopt"}
"""Libraries of those that torch does not have."""


def not_installed(variable: str, value: str) -> str:
    """What is wrong with a setting whose library is an extra, which is not there."""
    return f"{variable}={value} needs a library that is not installed: pip install 'sdlora[{value}]'"


def _spelled_out(targets: list[str]) -> list[str]:
    return list(dict.fromkeys(name for target in targets for name in GROUPS.get(target, [target])))


TargetModules = Annotated[StringList, AfterValidator(_spelled_out)]

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
        "buckets": False,
        "random_flip": 0.5,
        "caption_dropout": 0.0,
        "min_snr_gamma": None,
        "noise_offset": 0.0,
        "ema_decay": 0.0,
        "max_steps": 10_000,
        "checkpoint_every": 5_000,
        "validate_every": 500,
        "patience": 0,
        "publish": "final",
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
        "buckets": True,
        "random_flip": 0.5,
        "caption_dropout": 0.05,
        "min_snr_gamma": None,
        "noise_offset": 0.0,
        "ema_decay": 0.999,
        "max_steps": 3_000,
        "checkpoint_every": 250,
        "validate_every": 250,
        "patience": 4,
        "publish": "best",
    },
    # What shows in a minute on a CPU: every layer, and a learning rate with which so few steps move something.
    "miniature": {
        "rank": 16,
        "lora_alpha": 16,
        "init": "gaussian",
        "target_modules": ATTENTION + FEED_FORWARD + CONVOLUTIONS,
        "learning_rate": 3e-3,
        "weight_decay": 1e-2,
        "lr_scheduler": "cosine",
        "lr_warmup_steps": 0,
        "max_grad_norm": 1.0,
        "batch_size": 16,
        "resolution": 64,
        "buckets": False,
        "random_flip": 0.5,
        "caption_dropout": 0.0,
        "min_snr_gamma": None,
        "noise_offset": 0.0,
        "ema_decay": 0.0,
        "max_steps": 120,
        "checkpoint_every": 50,
        "validate_every": 50,
        "patience": 0,
        "publish": "final",
    },
}


class TrainSettings(DiffusionSettings):
    """Fine-tunes a LoRA on a published data set and publishes it."""

    model_config = prefixed("train")

    profile: Literal["report", "recommended", "miniature"] = decides(
        "report", description="Set of defaults for what follows; the defaults listed here are those of `report`."
    )
    dataset: ArtifactPath | None = decides(
        None,
        description="Path of the data set below ARTIFACTS_URI; without it, the one that data-prep made in this run.",
    )

    rank: int = decides(4, gt=0, le=1024, description="Rank r of the LoRA.")
    lora_alpha: float = decides(4, gt=0, description="Alpha of the LoRA; its effect is scaled by alpha / rank.")
    init: Literal["gaussian", "kaiming"] = decides("gaussian", description="Distribution of lora_A at the start.")
    target_modules: TargetModules = decides(
        ATTENTION,
        description="Modules of the U-Net that get a LoRA, by name ending; `attention`, `feed_forward` and "
        "`convolutions` stand for theirs.",
    )
    text_encoder: bool = decides(
        False, description="Puts a LoRA into the text encoder's attention too; prompts are then encoded in every step."
    )
    rslora: bool = decides(False, description="Scales by alpha / √rank (rank-stabilised LoRA), for high ranks.")
    dora: bool = decides(
        False,
        description="Learns the length of each weight vector of the U-Net apart from its direction (DoRA). The LoRA is for "
        "diffusers alone: other programs apply such ones otherwise than they were trained.",
    )

    optimizer: Literal["adamw", "adamw8bit", "prodigy"] = decides(
        "adamw",
        description="adamw8bit keeps its state in 8 bits, on a GPU (`pip install sdlora[adamw8bit]`); prodigy finds the "
        "learning rate by itself, around TRAIN_LEARNING_RATE=1 (`pip install sdlora[prodigy]`).",
    )
    learning_rate: float = decides(1e-4, gt=0, description="Peak learning rate.")
    weight_decay: float = decides(1e-2, ge=0, description="Weight decay of the optimizer.")
    lr_scheduler: Literal[
        "cosine", "cosine_with_restarts", "linear", "polynomial", "constant", "constant_with_warmup"
    ] = decides("cosine", description="Schedule of the learning rate.")
    lr_warmup_steps: int = decides(0, ge=0, description="Steps in which the learning rate rises from 0.")
    lr_restarts: int = decides(1, gt=0, description="Cycles of the schedule cosine_with_restarts.")
    max_grad_norm: float = decides(1.0, gt=0, description="The gradient of the whole LoRA is clipped to this norm.")
    max_steps: int = decides(10_000, gt=0, description="Optimizer steps in the whole run.")
    batch_size: int = decides(2, gt=0, description="Images in one step, over all processes together.")
    gradient_accumulation_steps: int = only_how(
        1,
        gt=0,
        description="Each process takes its share of a step in so many parts, one after the other, to need less memory.",
    )
    ema_decay: float = decides(
        0.0,
        ge=0,
        lt=1,
        description="Decay of a moving average of the LoRA, which is then what is validated and published; 0 keeps none.",
    )

    resolution: int = decides(
        1024,
        gt=0,
        le=MOST_PIXELS,
        multiple_of=8,
        description="Side of the square that images are resized and cropped to.",
    )
    buckets: bool = decides(
        False,
        description="Keeps the aspect ratio of images: each is cropped to the nearest rectangle of the area "
        "TRAIN_RESOLUTION², whose sides are multiples of TRAIN_BUCKET_STEP.",
    )
    bucket_step: int = decides(64, gt=0, multiple_of=8, description="Pixels between two sides of buckets.")
    bucket_enlarge: float = decides(
        1.0,
        ge=1,
        description="Images are enlarged to fill a bucket at most this many times; else they get a smaller one.",
    )
    crops: int = decides(
        1,
        gt=0,
        le=64,
        description="1: the centre of each image; more: so many crops at random places, one of which a step takes.",
    )
    random_flip: float = decides(0.5, ge=0, le=1, description="Probability of mirroring an image.")
    caption_dropout: float = decides(
        0.0, ge=0, lt=1, description="Probability of training an image without its caption."
    )
    min_snr_gamma: float | None = decides(
        None,
        gt=0,
        description="Weighs easy timesteps down to this signal-to-noise ratio, 5 as a rule; without it, all alike.",
    )
    noise_offset: float = decides(
        0.0, ge=0, le=1, description="Strength of the noise that is the same all over a channel; it teaches brightness."
    )

    validate_every: int = decides(500, gt=0, description="Steps between two measurements of the held-out loss.")
    validation_images: int = decides(64, gt=0, description="At most this many held-out images are measured.")
    patience: int = decides(
        0,
        ge=0,
        description="Stops after so many measurements in a row without a better held-out loss; 0 never stops early.",
    )
    publish: Literal["final", "best"] = decides(
        "final", description="Publishes the LoRA of the last step, or that of the best held-out loss."
    )
    checkpoint_every: int = only_how(5_000, gt=0, description="Steps between two checkpoints.")
    keep_last: int = only_how(
        3, ge=2, description="So many of the newest checkpoints stay, and that of the best step; others are deleted."
    )
    keep_every: int = only_how(0, ge=0, description="Checkpoints at multiples of so many steps stay as well; 0: none.")
    failed_uploads: int = only_how(
        3, gt=0, description="Checkpoints in a row that may fail to reach the store before training gives up."
    )
    fruitless_attempts: int = only_how(
        5, gt=0, description="Attempts in a row that may commit no checkpoint before the run is no longer tried."
    )
    log_every: int = only_how(
        10, gt=0, description="Steps between two points of the curves; the device is asked only then."
    )
    tracker: Literal["none", "tensorboard", "wandb", "mlflow"] = only_how(
        "none", description="Where the curves go besides metrics.jsonl (`pip install sdlora[tensorboard]` and so on)."
    )
    samples: int = decides(
        3, ge=0, le=32, description="Pictures drawn with the base and with the LoRA for its model card."
    )
    sample_prompts: TextList = decides([], description="What they show; without it, the first held-out captions.")
    sample_every: int = only_how(
        0, ge=0, description="Steps between drawing them on the way too; 0 draws at the end only."
    )
    sample_steps: int = decides(20, gt=0, le=MOST_STEPS, description="Denoising steps of these pictures.")
    sample_guidance: float = decides(7.5, ge=0, description="Classifier-free guidance scale of these pictures.")

    author: str | None = decides(None, before=None, description="Who made the LoRA, for its model card and headers.")
    licence: str | None = decides(
        None,
        before=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9.+-]*$",
        description="Its licence, by an identifier of SPDX or of the model hub (`cc-by-4.0`); without it, the one that "
        "the base model's asks for, where that is known.",
    )
    date: datetime.date | None = decides(
        None,
        before=None,
        description="Day that its headers tell, such as that of its release (`2026-11-30`); without it they tell none, so that "
        "the same training gives the same bytes on any day.",
    )
    seed: int = decides(0, ge=0, description="Seed of everything random in the run.")
    mixed_precision: Literal["auto", "no", "fp16", "bf16"] = decides(
        "auto", description="Precision of the frozen models; the LoRA is always fp32. auto: bf16 on a GPU that has it."
    )
    deterministic: bool = only_how(
        False,
        description="Takes none but deterministic kernels, as a CPU does anyway: on a GPU, a run that is resumed has the bits "
        "of one that is not only with them. They are slower.",
    )
    gradient_checkpointing: bool = only_how(
        False, description="Computes activations twice rather than keep them: a third slower, for much less memory."
    )
    compile: bool = only_how(False, description="Compiles the U-Net first (torch.compile); needs a C compiler.")
    cache_on_device: Literal["auto", "always", "never"] = only_how(
        "auto",
        description="Whether the encoded data set stays in the device's memory; auto: if a quarter of it is enough.",
    )
    processes: int | None = only_how(
        None,
        gt=0,
        le=10_000,
        description="Processes on this machine; without it, one a GPU, and one where there is none.",
    )
    nodes: int = only_how(1, gt=0, le=10_000, description="Machines that train together; each runs `sdlora train`.")
    node_rank: int | None = only_how(
        None, ge=0, description="Number of this machine, from 0; without it, that of the pod (JOB_COMPLETION_INDEX)."
    )
    rendezvous: str | None = only_how(
        None,
        pattern=r"^[A-Za-z0-9.\-\[\]:]+:\d+$",
        description="Where the machines meet, host:port of the first one; without it, MASTER_ADDR and MASTER_PORT.",
    )
    peer_timeout: int = only_how(
        600, gt=0, le=YEAR, description="Seconds that a process waits for the others before it gives up."
    )
    grace_seconds: int = only_how(
        120,
        gt=0,
        le=YEAR,
        description="Seconds between being told to stop and being killed (terminationGracePeriodSeconds); a stop that "
        "takes most of them is warned about.",
    )
    stall_seconds: int = only_how(
        1800,
        ge=0,
        le=YEAR,
        description="Seconds without a finished step, or part of other work, after which it ends; 0: never.",
    )
    status_seconds: float = only_how(
        15, gt=0, le=YEAR, description="Seconds between two writings of the run's status.json, and of the time it took."
    )
    price_per_hour: float | None = only_how(
        None,
        gt=0,
        validation_alias="price_per_hour",
        description="Price of an hour on all machines of the training together, in any currency: log, status.json and outcome "
        "then tell what the run has cost and will.",
    )
    max_hours: float | None = only_how(
        None,
        gt=0,
        description="Hours of all attempts together after which the training ends: its best LoRA so far is published, marked "
        "as capped. With a higher limit the same run goes on from there.",
    )
    max_cost: float | None = only_how(
        None, gt=0, description="The same by its price: hours of all attempts × PRICE_PER_HOUR."
    )

    @model_validator(mode="after")
    def _a_cost_has_a_price(self) -> Self:
        if self.max_cost is not None and self.price_per_hour is None:
            raise ValueError(f"TRAIN_MAX_COST={self.max_cost:g} says nothing without PRICE_PER_HOUR; set that too")
        return self

    @classmethod
    def prepared(cls, values: dict[str, Any]) -> dict[str, Any]:
        """A profile sets defaults."""
        profile = PROFILES.get(str(values.get("train_profile", values.get("profile", "report"))), {})
        chosen = {name: value for name, value in profile.items() if not {name, f"train_{name}"} & values.keys()}
        return super().prepared({**chosen, **values})


def check_batch_size(settings: TrainSettings, processes: int) -> None:
    """Raises BadConfiguration unless every process gets the same number of samples for each part of a step."""
    if settings.batch_size % (processes * settings.gradient_accumulation_steps):
        raise BadConfiguration(
            f"TRAIN_BATCH_SIZE={settings.batch_size} cannot be shared equally by {processes} processes"
            f" × TRAIN_GRADIENT_ACCUMULATION_STEPS={settings.gradient_accumulation_steps}"
        )
