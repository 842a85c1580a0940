"""A LoRA that is about to be published, without the training."""

from collections.abc import Sequence
from typing import Any

from service.settings.identity import identity
from service.settings.train import TrainSettings
from service.training.trained import Trained


def trained(
    *,
    captions: Sequence[str] = ('8-bit, a "cat"',),
    style: str = "8-bit illustration",
    **settings: Any,
) -> Trained:
    recipe = identity(TrainSettings.model_validate(settings), dataset="datasets/ours/0123456789abcdef")
    return Trained("ours-1", recipe, captions, style, steps=100, of_step=90)
