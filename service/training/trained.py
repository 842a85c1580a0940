"""What a LoRA was made from and came to, as its model card and the headers of its files tell it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.settings.models import MINIATURE, is_public, public_name

LICENCES = {
    MINIATURE: "apache-2.0",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "creativeml-openrail-m",
    "CompVis/stable-diffusion-v1-4": "creativeml-openrail-m",
}
"""Of base models that bind what is made of them: that of a LoRA unless TRAIN_LICENCE names another."""


@dataclass(frozen=True)
class Trained:
    """A LoRA that is about to be published.

    name: RUN_ID; captions: of the images of the training; style: the phrase that opens them, or empty; steps: optimizer steps
    that were taken, of_step: the one that the weights are of; limit: of time or cost, which ended the training early.
    """

    name: str
    recipe: Mapping[str, Any]
    captions: Sequence[str]
    style: str
    steps: int
    of_step: int
    limit: str | None = None

    @property
    def base(self) -> str | None:
        """The base model's name on the hub; None for one that lies in a folder or a bucket, which says nothing elsewhere."""
        base = str(self.recipe["model_base"])
        return base if is_public(base) else None

    @property
    def base_name(self) -> str:
        """What people call the base model: never the path of a machine or a bucket."""
        return public_name(str(self.recipe["model_base"]))

    @property
    def licence(self) -> str | None:
        """TRAIN_LICENCE, or what the base model's licence asks for; None where neither is known."""
        chosen = self.recipe["licence"] or LICENCES.get(str(self.recipe["model_base"]))
        return None if chosen is None else str(chosen)

    @property
    def trigger(self) -> str | None:
        """The phrase that binds the style; None for captions without one."""
        return self.style or None
