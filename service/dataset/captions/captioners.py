"""Models that say what is in an image: BLIP, and any that takes an image and a prompt."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import structlog
import torch
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    BlipForConditionalGeneration,
    BlipProcessor,
)

from service.artifacts.keys import content_key
from service.diffusion.models import ModelFiles, loading, locate_model
from service.settings.data_prep import DataPrepSettings

# Beams, not samples: the same images must give the same captions, and so the same data set.
GENERATION: dict[str, Any] = {"do_sample": False, "num_beams": 3, "max_new_tokens": 40, "repetition_penalty": 1.15}

log = structlog.get_logger(__name__)


class Captioner(Protocol):
    """Says what is in images. `key` stands for everything that decides its words."""

    @property
    def key(self) -> str: ...

    def describe(self, images: Sequence[Image.Image]) -> list[str]:
        """The words for each image of one batch. Raises torch.OutOfMemoryError when the batch is too large."""


def open_captioner(settings: DataPrepSettings) -> Captioner:
    """The captioner that the settings name. It is loaded when it is first asked, which a cached run never does."""
    files = locate_model(settings, "model_captioner")
    if settings.captioner == "blip":
        return BlipCaptioner(files)
    return _PromptedCaptioner(files, settings.caption_prompt)


class _Loaded:
    """What both have in common: where the model runs, and what its words depend on."""

    def __init__(self, files: ModelFiles, **inputs: str) -> None:
        self._files = files
        self._inputs = inputs

    @cached_property
    def key(self) -> str:
        # Not the batch: it decides the last digits of floats at the most, and halves itself when memory is short.
        return content_key({"model": _identity(self._files), "generation": GENERATION, **self._inputs})

    @cached_property
    def device(self) -> torch.device:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def load(self, model: Any, processor: Any) -> tuple[Any, Any]:
        """Raises MissingInput or BadData for a model that does not load."""
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        # The code of a model comes with transformers, never with its weights.
        options = {
            **self._files.options,
            **({} if model is BlipForConditionalGeneration else {"trust_remote_code": False}),
        }
        with loading(self._files):
            loaded_processor = processor.from_pretrained(self._files.name, **options)
            loaded = model.from_pretrained(self._files.name, dtype=dtype, **options).to(self.device).eval()
        log.info("captioner loaded", model=self._files.name, device=str(self.device))
        return loaded, loaded_processor


class BlipCaptioner(_Loaded):
    """Unconditional captions: with a prompt, `generate` would drop its last token and repeat the rest."""

    def __init__(self, files: ModelFiles) -> None:
        super().__init__(files, kind="blip")

    @cached_property
    def _parts(self) -> tuple[Any, Any]:
        return self.load(BlipForConditionalGeneration, BlipProcessor)

    @torch.inference_mode()
    def describe(self, images: Sequence[Image.Image]) -> list[str]:
        model, processor = self._parts
        pixels = processor(images=list(images), return_tensors="pt").pixel_values.to(model.device, model.dtype)
        return processor.batch_decode(model.generate(pixel_values=pixels, **GENERATION), skip_special_tokens=True)


class _PromptedCaptioner(_Loaded):
    """Any image-text-to-text model, asked with a prompt: in its chat form where it has one."""

    def __init__(self, files: ModelFiles, prompt: str) -> None:
        super().__init__(files, kind="image-text-to-text", prompt=prompt)
        self._prompt = prompt

    @cached_property
    def _parts(self) -> tuple[Any, Any]:
        model, processor = self.load(AutoModelForImageTextToText, AutoProcessor)
        if getattr(processor, "tokenizer", None) is not None:
            # Words are added at the right end; padding there would stand between a prompt and its answer.
            processor.tokenizer.padding_side = "left"
        return model, processor

    @torch.inference_mode()
    def describe(self, images: Sequence[Image.Image]) -> list[str]:
        model, processor = self._parts
        inputs = self._inputs_of(images, processor).to(model.device)
        for name, value in inputs.items():
            if torch.is_floating_point(value):
                inputs[name] = value.to(model.dtype)
        tokens = model.generate(**inputs, **GENERATION)
        # A decoder repeats its prompt before the answer; an encoder-decoder does not.
        answered = tokens if model.config.is_encoder_decoder else tokens[:, inputs["input_ids"].shape[1] :]
        return [text.strip() for text in processor.batch_decode(answered, skip_special_tokens=True)]

    def _inputs_of(self, images: Sequence[Image.Image], processor: Any) -> Any:
        if not getattr(processor, "chat_template", None):
            return processor(images=list(images), text=[self._prompt] * len(images), return_tensors="pt", padding=True)
        asked = [
            [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": self._prompt}]}]
            for image in images
        ]
        return processor.apply_chat_template(
            asked,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        )


def _identity(files: ModelFiles) -> str:
    """What stands for a model's words: hub id and revision, or the content of its folder, wherever that lies."""
    if files.pinned:
        return files.pinned
    digest = hashlib.sha256()
    for file in sorted(path for path in Path(files.name).rglob("*") if path.is_file()):
        digest.update(file.relative_to(files.name).as_posix().encode())
        with file.open("rb") as source:
            digest.update(hashlib.file_digest(source, "sha256").digest())
    return digest.hexdigest()
