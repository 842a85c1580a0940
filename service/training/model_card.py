"""The model card: what a LoRA is, and how a stranger uses it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from service.diffusion.family import LoraFiles
from service.settings.models import MINIATURE
from service.templates import rendered

TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
MINIATURE_FOLDER = "service/miniature/models/stable-diffusion"
"""Where a checkout has it, as it is on no hub."""
SHOWN_SETTINGS = (
    "profile", "rank", "lora_alpha", "init", "target_modules", "text_encoder", "rslora", "dora", "optimizer",
    "learning_rate", "weight_decay", "lr_scheduler", "lr_warmup_steps", "max_grad_norm", "batch_size", "ema_decay",
    "resolution", "buckets", "crops", "random_flip", "caption_dropout", "min_snr_gamma", "noise_offset", "seed",
)  # fmt: skip


def write_card(
    file: Path,
    *,
    name: str,
    recipe: Mapping[str, Any],
    images: int,
    modules: int,
    steps: int,
    of_step: int,
    ratio: float,
    samples: Sequence[str],
    prompt: str,
    files: LoraFiles,
) -> None:
    """`of_step`: of the published weights; `ratio`: their held-out loss, base model = 1.

    samples: the prompts of samples.png; prompt: one to begin with.
    """
    text = rendered(
        TEMPLATE,
        name=name,
        base_model=recipe["model_base"],
        pretrained=MINIATURE_FOLDER if recipe["model_base"] == MINIATURE else recipe["model_base"],
        dataset=recipe["dataset"],
        images=images,
        modules=modules,
        steps=steps,
        of_step=of_step,
        ratio=ratio,
        samples=list(samples),
        prompt=prompt.replace('"', "'"),
        settings={name: recipe[name] for name in SHOWN_SETTINGS},
        files=files,
    )
    file.write_text(text)


def training_facts(recipe: Mapping[str, Any], images: int, steps: int, prediction: str) -> dict[str, str]:
    """For the header of the weights: Stability's model metadata standard, and the keys that kohya's readers know."""
    return {
        "modelspec.title": f"LoRA for {recipe['model_base']}",
        "modelspec.resolution": f"{recipe['resolution']}x{recipe['resolution']}",
        "modelspec.prediction_type": "v" if prediction == "v_prediction" else prediction,
        "ss_sd_model_name": str(recipe["model_base"]),
        "ss_num_train_images": str(images),
        "ss_steps": str(steps),
        "ss_total_batch_size": str(recipe["batch_size"]),
        "ss_learning_rate": str(recipe["learning_rate"]),
        "ss_lr_scheduler": str(recipe["lr_scheduler"]),
        "ss_optimizer": str(recipe["optimizer"]),
        "ss_seed": str(recipe["seed"]),
        "ss_min_snr_gamma": str(recipe["min_snr_gamma"]),
        "ss_noise_offset": str(recipe["noise_offset"]),
        "ss_caption_dropout_rate": str(recipe["caption_dropout"]),
        "sdlora.dataset": str(recipe["dataset"]),
        "sdlora.profile": str(recipe["profile"]),
    }
