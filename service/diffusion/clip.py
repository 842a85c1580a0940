"""How well images show what their prompts say, by a CLIP."""

from collections.abc import Sequence

import torch
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


def clip_scores(
    images: Sequence[Image.Image], prompts: Sequence[str], files: ModelFiles, device: torch.device | str = "cpu"
) -> list[float]:
    """`Clip.scores` of any number of images, which need not fit the device at once."""
    if len(images) != len(prompts):
        raise ValueError(f"{len(images)} images and {len(prompts)} prompts do not pair up")
    clip = Clip(files, device)
    # Not torchmetrics' CLIPScore: it gives the mean alone, and calls .norm() on what is an output object in transformers 5.
    scores: list[float] = []
    for start in range(0, len(images), BATCH):
        scores += clip.scores(images[start : start + BATCH], prompts[start : start + BATCH])
    return scores
