"""What criteria measure: the pictures of both sides, the held-out images, and what models say about them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.diffusion.images import CaptionedImage, open_image
from service.evaluation.adherence import content_of

Side = TypeVar("Side")


class Sides(NamedTuple, Generic[Side]):
    """The same of the base model and of the LoRA."""

    base: Side
    lora: Side


class Judges(Protocol):
    """The models that measure. Each is loaded when it is first asked."""

    def style_features(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """images: N of one size; returns (N, 1280), see `evaluation.features`."""
        ...

    def clip_scores(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        """CLIPScore of each image with its prompt, 0 to 100, see `diffusion.clip`."""
        ...

    def held_out_losses(self, images: Sequence[CaptionedImage]) -> Sides[list[float]]:
        """Mean denoising loss of each image over the same timesteps and noise, see `diffusion.held_out`."""
        ...


@dataclass(frozen=True)
class Sample:
    """Everything that there is to measure. What models say is asked once, by the first criterion that needs it.

    prompts: N, the prompt of each picture; pictures: N of each side, number i of both with the same prompt and seed.
    held_out, training: the data set's images; style: the phrase that opens its captions.
    """

    prompts: Sequence[str]
    pictures: Sides[Sequence[Image.Image]]
    held_out: Sequence[CaptionedImage]
    training: Sequence[CaptionedImage]
    style: str
    judges: Judges

    @cached_property
    def features(self) -> Sides[NDArray[np.float32]]:
        """Style features of the pictures, (N, 1280) each."""
        return Sides(*(self.judges.style_features(side) for side in self.pictures))

    @cached_property
    def held_out_features(self) -> NDArray[np.float32]:
        """Style features of the M held-out images at the size of the pictures, (M, 1280)."""
        return self.judges.style_features(self.as_large(self.held_out))

    @cached_property
    def clip_scores(self) -> Sides[list[float]]:
        """CLIPScore of each picture with the content of its prompt, its style phrase left out: N each, 0 to 100."""
        contents = [content_of(prompt, self.style) for prompt in self.prompts]
        return Sides(*(self.judges.clip_scores(side, contents) for side in self.pictures))

    @cached_property
    def held_out_losses(self) -> Sides[list[float]]:
        """Mean denoising loss of each held-out image: M each."""
        return self.judges.held_out_losses(self.held_out)

    def as_large(self, images: Sequence[CaptionedImage]) -> list[Image.Image]:
        """Images of the data set at the size of the pictures: else the resizing itself would read as another style."""
        size = self.pictures.base[0].size
        return [open_image(image).resize(size, Image.Resampling.LANCZOS) for image in images]
