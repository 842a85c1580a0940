"""How well images show what their prompts say, by a CLIP."""

from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPModel, CLIPProcessor

from service.diffusion.models import ModelFiles, loading

BATCH = 32


class Clip:
    """A loaded CLIP (Radford et al. 2021), in float32. `files`: by `locate_model(settings, "model_clip")`.

    Raises MissingInput or BadData when the model cannot be loaded.
    """

    def __init__(self, files: ModelFiles, device: torch.device | str = "cpu") -> None:
        with loading(files):
            self._model = CLIPModel.from_pretrained(files.name, dtype=torch.float32, **files.options).to(device).eval()
            self._processor = CLIPProcessor.from_pretrained(files.name, **files.options)

    @torch.no_grad()
    def scores(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        """CLIPScore of each image with its prompt, 100·max(cos(image, text), 0) (Hessel et al. 2021).

        images: a batch, of any sizes; prompts: as many, cut at the length that the text encoder reads.
        """
        inputs = self._processor(
            text=list(prompts),
            images=[image.convert("RGB") for image in images],
            return_tensors="pt",
            padding=True,
            truncation=True,
            max_length=self._model.config.text_config.max_position_embeddings,
        ).to(self._model.device)
        pictures: Tensor = self._model.get_image_features(pixel_values=inputs["pixel_values"]).pooler_output
        texts: Tensor = self._model.get_text_features(inputs["input_ids"], inputs["attention_mask"]).pooler_output
        return (100 * F.cosine_similarity(pictures, texts)).clamp(min=0).tolist()

    @torch.no_grad()
    def embeddings(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """images: a batch of B, of any sizes; returns (B, D), each of length 1."""
        inputs = self._processor(images=[image.convert("RGB") for image in images], return_tensors="pt")
        pixels = inputs["pixel_values"].to(self._model.device)
        pictures: Tensor = self._model.get_image_features(pixel_values=pixels).pooler_output
        found: NDArray[np.float32] = F.normalize(pictures).cpu().numpy()
        return found


def clip_scores(images: Sequence[Image.Image], prompts: Sequence[str], clip: Clip) -> list[float]:
    """`Clip.scores` of any number of images, which need not fit the device at once."""
    if len(images) != len(prompts):
        raise ValueError(f"{len(images)} images and {len(prompts)} prompts do not pair up")
    # Not torchmetrics' CLIPScore: it gives the mean alone, and calls .norm() on what is an output object in transformers 5.
    scores: list[float] = []
    for start in range(0, len(images), BATCH):
        scores += clip.scores(images[start : start + BATCH], prompts[start : start + BATCH])
    return scores


def clip_embeddings(images: Iterable[Image.Image], clip: Clip) -> NDArray[np.float32]:
    """`Clip.embeddings` of any number of images, N at least 1, of which one batch is held at a time: (N, D)."""
    remaining = iter(images)
    found = []
    while batch := list(islice(remaining, BATCH)):
        found.append(clip.embeddings(batch))
    return np.concatenate(found)
