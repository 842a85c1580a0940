"""Whether an image shows what its prompt asks for."""

import re
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPModel, CLIPProcessor

from service.diffusion.models import ModelFiles, loading

BATCH = 32


def content_of(caption: str, style: str) -> str:
    """The caption without the style phrase in front: "8-bit illustration, a red apple" -> "a red apple".

    Adherence is judged on the content alone: with the style phrase in the prompt, a LoRA would gain by its style and lose
    what is drawn unnoticed. A caption that does not begin with the phrase, or consists of it, comes back as it is.
    """
    phrase = r"\s+".join(re.escape(word) for word in style.strip(" ,;:.").split())
    if not phrase:
        return caption
    return re.sub(rf"^\s*{phrase}(?:\s*[,;:.]+\s*|\s+)(?=\S)", "", caption, count=1, flags=re.IGNORECASE)


def clip_scores(
    images: Sequence[Image.Image], prompts: Sequence[str], files: ModelFiles, device: torch.device | str = "cpu"
) -> list[float]:
    """CLIPScore of each image with its prompt, 100·max(cos(image, text), 0), in float32 (torchmetrics' definition).

    images: N, of any size; prompts: N, cut at the length that the text encoder reads; files: the CLIP, by
    `locate_model(settings, "model_clip")`.
    """
    if len(images) != len(prompts):
        raise ValueError(f"{len(images)} images and {len(prompts)} prompts do not pair up")
    with loading(files):
        model = CLIPModel.from_pretrained(files.name, dtype=torch.float32, **files.options).to(device).eval()
        processor = CLIPProcessor.from_pretrained(files.name, **files.options)
    # Not torchmetrics' CLIPScore: it gives the mean alone, and calls .norm() on what is an output object in transformers 5.
    scores: list[float] = []
    for start in range(0, len(images), BATCH):
        batch = slice(start, start + BATCH)
        scores += _scores([image.convert("RGB") for image in images[batch]], list(prompts[batch]), model, processor)
    return scores


@torch.no_grad()
def _scores(images: list[Image.Image], prompts: list[str], model: CLIPModel, processor: CLIPProcessor) -> list[float]:
    length = model.config.text_config.max_position_embeddings
    inputs = processor(
        text=prompts, images=images, return_tensors="pt", padding=True, truncation=True, max_length=length
    ).to(model.device)
    pictures: Tensor = model.get_image_features(pixel_values=inputs["pixel_values"]).pooler_output
    texts: Tensor = model.get_text_features(inputs["input_ids"], inputs["attention_mask"]).pooler_output
    return (100 * F.cosine_similarity(pictures, texts)).clamp(min=0).tolist()
