"""The model card: what a LoRA is, and how a stranger uses it."""

import json
from collections.abc import Sequence
from pathlib import Path

from service.diffusion.family import LoraFiles
from service.settings.models import MINIATURE
from service.templates import rendered
from service.training.trained import Trained

TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
MINIATURE_FOLDER = "service/miniature/models/stable-diffusion"
"""Where a checkout has it, as it is on no hub."""
SHOWN_SETTINGS = (
    "profile", "rank", "lora_alpha", "init", "target_modules", "text_encoder", "rslora", "dora", "optimizer",
    "learning_rate", "weight_decay", "lr_scheduler", "lr_warmup_steps", "max_grad_norm", "batch_size", "ema_decay",
    "resolution", "buckets", "crops", "random_flip", "caption_dropout", "min_snr_gamma", "noise_offset", "seed",
)  # fmt: skip


def write_card(
    file: Path, trained: Trained, files: LoraFiles, *, modules: int, ratio: float, samples: Sequence[str]
) -> None:
    """modules: how many have an adapter; ratio: the weights' held-out loss, base model = 1; samples: prompts of samples.png."""
    text = rendered(
        TEMPLATE,
        trained=trained,
        pretrained=MINIATURE_FOLDER if trained.base == MINIATURE else trained.base or f"folder of {trained.base_name}",
        modules=modules,
        ratio=ratio,
        samples=list(samples),
        prompt=json.dumps(trained.captions[0], ensure_ascii=False),  # which Python reads as well
        settings={name: trained.recipe[name] for name in SHOWN_SETTINGS},
        files=files,
    )
    file.write_text(text)
