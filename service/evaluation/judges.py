"""The models that measure, as the settings name them."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from service.diffusion.clip import Clip, clip_embeddings, clip_scores
from service.diffusion.families import family_of
from service.diffusion.family import Pipeline
from service.diffusion.held_out import losses_of
from service.diffusion.images import CaptionedImage
from service.diffusion.models import locate_model
from service.evaluation.features import StyleFeatures, style_features
from service.evaluation.sample import Sides
from service.settings.evaluate import EvaluateSettings


class LoadedJudges:
    """Loads each model when it is first asked, on the best device there is.

    lora: the folder of the LoRA; resolution: the side in pixels at which it was trained, and its losses are measured; scale:
    its strength.
    """

    def __init__(self, settings: EvaluateSettings, lora: Path, resolution: int, scale: float = 1.0) -> None:
        self._settings = settings
        self._lora = lora
        self._scale = scale
        self._resolution = resolution
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def style_features(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """images: N of one size; returns (N, 1280) of EfficientNet-Lite0."""
        return style_features(images, self._style_network)

    def clip_scores(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        """CLIPScore, 0 to 100, of each image with its prompt, by MODEL_CLIP."""
        return clip_scores(images, prompts, self._clip)

    def clip_embeddings(self, images: Iterable[Image.Image]) -> NDArray[np.float32]:
        """images: N, of which one batch is held at a time; returns (N, D) of MODEL_CLIP, each of length 1."""
        return clip_embeddings(images, self._clip)

    def reference(self, images: Sequence[Image.Image]) -> list[Image.Image]:
        """The images as they are, or as the autoencoder gives them back."""
        return list(images) if self._settings.style_reference == "original" else self._pipeline.reconstruct(images)

    def held_out_losses(self, images: Sequence[CaptionedImage]) -> Sides[list[float]]:
        """Loss of each image, over all timesteps; the captions are encoded anew, as a LoRA may sit there too."""
        base = losses_of(self._pipeline, images, self._resolution)
        self._pipeline.put_on_lora(self._lora, self._scale)
        return Sides(base, losses_of(self._pipeline, images, self._resolution))

    @cached_property
    def _pipeline(self) -> Pipeline:
        return family_of(self._settings).open_pipeline(self._settings)

    @cached_property
    def _style_network(self) -> StyleFeatures:
        return StyleFeatures().to(self._device)

    @cached_property
    def _clip(self) -> Clip:
        return Clip(locate_model(self._settings, "model_clip"), self._device)
