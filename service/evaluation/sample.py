"""What criteria measure: the pictures of both sides, the held-out images, and what models say about them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.diffusion.images import CaptionedImage, open_image
from service.diffusion.looks import Look, look_of
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

    def clip_embeddings(self, images: Iterable[Image.Image]) -> NDArray[np.float32]:
        """images: N, read one batch after the other; returns (N, D), each of length 1, see `diffusion.clip`."""
        ...

    def reference(self, images: Sequence[Image.Image]) -> list[Image.Image]:
        """Images of the data set as pictures are to be compared with them, see EVALUATE_STYLE_REFERENCE."""
        ...

    def held_out_losses(self, images: Sequence[CaptionedImage]) -> Sides[list[float]]:
        """Mean denoising loss of each image over the same timesteps and noise, see `diffusion.held_out`."""
        ...


class Learned(NamedTuple):
    """What the T training images are recognised by. embeddings: (T, D), of CLIP, each of length 1."""

    embeddings: NDArray[np.float32]
    looks: Sequence[Look]


@dataclass(frozen=True)
class Sample:
    """Everything that there is to measure. What models say is asked once, by the first criterion that needs it.

    prompts: N, the prompt of each picture; pictures: N of each side, number i of both with the same prompt and seed.
    held_out, training: the data set's images; style: the phrase that opens its captions.
    without_style: pictures of some prompts without that phrase, in pairs as well, one a prompt; None where none were drawn.
    champion: N, what the reigning LoRA drew of the same prompts and seeds; None where there is none, or it is this one.
    """

    prompts: Sequence[str]
    pictures: Sides[Sequence[Image.Image]]
    held_out: Sequence[CaptionedImage]
    training: Sequence[CaptionedImage]
    style: str
    judges: Judges
    without_style: Sides[Sequence[Image.Image]] | None = None
    champion: Sequence[Image.Image] | None = None

    @cached_property
    def features(self) -> Sides[NDArray[np.float32]]:
        """Style features of the pictures, (N, 1280) each."""
        return Sides(*(self.judges.style_features(side) for side in self.pictures))

    @cached_property
    def held_out_features(self) -> NDArray[np.float32]:
        """Style features of the M held-out images as pictures are compared with them, (M, 1280)."""
        return self.judges.style_features(self.judges.reference(self.as_large(self.held_out)))

    @cached_property
    def clip_scores(self) -> Sides[list[float]]:
        """CLIPScore of each picture with the content of its prompt, its style phrase left out: N each, 0 to 100."""
        return Sides(*(self.judges.clip_scores(side, self.contents) for side in self.pictures))

    @cached_property
    def champion_features(self) -> NDArray[np.float32]:
        """Style features of the champion's pictures, (N, 1280)."""
        return self.judges.style_features(self._of_champion)

    @cached_property
    def champion_clip_scores(self) -> list[float]:
        """CLIPScore of the champion's pictures, as `clip_scores`: N."""
        return self.judges.clip_scores(self._of_champion, self.contents)

    @property
    def _of_champion(self) -> Sequence[Image.Image]:
        if self.champion is None:
            raise TypeError("a criterion asks for the champion's pictures, and the sample has none")
        return self.champion

    @property
    def contents(self) -> list[str]:
        """What each prompt asks for beside the style."""
        return [content_of(prompt, self.style) for prompt in self.prompts]

    @cached_property
    def held_out_losses(self) -> Sides[list[float]]:
        """Mean denoising loss of each held-out image: M each."""
        return self.judges.held_out_losses(self.held_out)

    @cached_property
    def features_without_style(self) -> Sides[NDArray[np.float32]] | None:
        """Style features of the pictures of prompts without the style phrase, (B, 1280) each."""
        return self.without_style and Sides(*(self.judges.style_features(side) for side in self.without_style))

    @cached_property
    def embeddings(self) -> Sides[NDArray[np.float32]]:
        """CLIP embeddings of the pictures, (N, D) each."""
        return Sides(*(self.judges.clip_embeddings(side) for side in self.pictures))

    @cached_property
    def held_out_embeddings(self) -> NDArray[np.float32]:
        """CLIP embeddings of the held-out images at the size of the pictures, (M, D)."""
        return self.judges.clip_embeddings(self._as_large(self.held_out))

    @cached_property
    def learned(self) -> Learned:
        """The training images at the size of the pictures. Of thousands, each is read once, and let go."""
        looks: list[Look] = []

        def looked_at() -> Iterator[Image.Image]:
            for image in self._as_large(self.training):
                looks.append(look_of(image))
                yield image

        return Learned(self.judges.clip_embeddings(looked_at()), looks)

    def as_large(self, images: Sequence[CaptionedImage]) -> list[Image.Image]:
        """Images of the data set at the size of the pictures: else the resizing itself would read as another style."""
        return list(self._as_large(images))

    def _as_large(self, images: Iterable[CaptionedImage]) -> Iterator[Image.Image]:
        size = self.pictures.base[0].size
        return (open_image(image).resize(size, Image.Resampling.LANCZOS) for image in images)
