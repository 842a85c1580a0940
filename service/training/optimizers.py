"""What moves the LoRA: optimizer and learning-rate schedule by name."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch
from diffusers.optimization import get_scheduler
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from service.exits import BadConfiguration
from service.settings.train import OPTIMIZERS, TrainSettings, not_installed

BETAS = (0.9, 0.999)


def new_optimizer(parameters: Sequence[nn.Parameter], settings: TrainSettings, device: torch.device) -> Optimizer:
    """Raises BadConfiguration, saying what to install, for an optimizer whose library is not there."""
    common: dict[str, Any] = {"lr": settings.learning_rate, "betas": BETAS, "weight_decay": settings.weight_decay}
    if settings.optimizer == "adamw8bit":
        return extra(f"{OPTIMIZERS['adamw8bit']}.optim", "adamw8bit").AdamW8bit(parameters, **common)
    if settings.optimizer == "prodigy":
        # Warm-up and bias correction are safe here: without them its first steps are wild.
        options = {"use_bias_correction": True, "safeguard_warmup": True}
        return extra(OPTIMIZERS["prodigy"], "prodigy").Prodigy(parameters, **common, **options)
    return torch.optim.AdamW(parameters, **common, fused=True if device.type == "cuda" else None)


def extra(module: str, name: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise BadConfiguration(not_installed("TRAIN_OPTIMIZER", name)) from error


def new_schedule(optimizer: Optimizer, settings: TrainSettings) -> LRScheduler:
    """In optimizer steps, whatever the number of processes: it never goes through Accelerate, which would count each."""
    return get_scheduler(
        settings.lr_scheduler,
        optimizer,
        num_warmup_steps=settings.lr_warmup_steps,
        num_training_steps=settings.max_steps,
        num_cycles=settings.lr_restarts,
    )
