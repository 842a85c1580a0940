"""Says with BLIP what is in each image, and makes it a caption that binds the style."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog
import torch
from PIL import Image
from transformers import BlipForConditionalGeneration, BlipProcessor

from service.dataset.candidates import Reason, Record
from service.diffusion.models import loading, locate_model
from service.exits import OutOfDeviceMemory
from service.logs import progress
from service.settings.data_prep import DataPrepSettings

# Beams, not samples: the same images must give the same captions, and so the same data set.
GENERATION = {"do_sample": False, "num_beams": 3, "max_new_tokens": 40, "repetition_penalty": 1.15}

MEDIUM = (
    r"(?:pixel(?:ated|s)?|art(?:work)?|\d+\s*-?\s*bits?|retro|vector|digital|flat|style[d]?|illustrations?|drawings?|"
    r"paintings?|pictures?|images?|photos?|photographs?|cartoons?|icons?|emojis?|sprites?|clip\s?art|renderings?)"
)
OPENING = re.compile(rf"^(?:(?:an?|the)\s+)?(?:{MEDIUM}[\s-]+)*{MEDIUM}\s+(?:of|showing|depicting)(?:\s+|$)", re.I)
ENDING = re.compile(rf"\s+in\s+(?:an?\s+)?(?:{MEDIUM}[\s-]+)*{MEDIUM}$", re.I)
REPEATED = re.compile(r"(?<!\S)(\S+(?:\s+\S+){0,3})(?:\s+\1)+(?!\S)", re.I)

# Readers of CSV files take these words for an absent value, even in quotes.
TAKEN_FOR_NOTHING = {"", "na", "n/a", "nan", "none", "null"}

log = structlog.get_logger(__name__)


def caption(records: Sequence[Record], settings: DataPrepSettings) -> tuple[list[Record], dict[str, str]]:
    """Captions by sha256, and the records, where an image without a usable caption is now rejected (caption_failed)."""
    accepted = [(record.sha256, record.image) for record in records if record.sha256 and record.image]
    texts = describe([image for _, image in accepted], settings)
    captions = {}
    for (sha256, _), text in zip(accepted, texts, strict=True):
        styled = with_style(settings.style, clean_caption(text))
        if styled.casefold() not in TAKEN_FOR_NOTHING:
            captions[sha256] = styled
    return [judged(record, captions) for record in records], captions


def judged(record: Record, captions: dict[str, str]) -> Record:
    if record.reason is not None or record.sha256 in captions:
        return record
    return replace(record, reason=Reason.CAPTION_FAILED, image=None)


def describe(images: Sequence[Path], settings: DataPrepSettings) -> list[str]:
    """What BLIP says about each image file, word for word.

    Raises MissingInput or BadData for a model that does not load, OutOfDeviceMemory when one image is too much.
    """
    cuda = torch.cuda.is_available()
    device, dtype = ("cuda", torch.bfloat16) if cuda else ("cpu", torch.float32)
    files = locate_model(settings, "model_captioner")
    with loading(files):
        processor = BlipProcessor.from_pretrained(files.name, **files.options)
        model = BlipForConditionalGeneration.from_pretrained(files.name, dtype=dtype, **files.options)
    model = model.to(device).eval()
    log.info("captioner loaded", model=settings.model_captioner, device=device)

    def captions_of(batch: Sequence[Path]) -> list[str]:
        return generate(batch, processor, model)

    texts = in_batches(images, settings.caption_batch, captions_of)
    return list(progress(texts, "captioning", len(images)))


@torch.inference_mode()
def generate(batch: Sequence[Path], processor: Any, model: Any) -> list[str]:
    """Captions of a batch of RGB image files."""
    pictures = []
    for file in batch:
        with Image.open(file) as image:
            pictures.append(image.convert("RGB"))
    pixels = processor(images=pictures, return_tensors="pt").pixel_values.to(model.device, model.dtype)
    tokens = model.generate(pixel_values=pixels, **GENERATION)
    return processor.batch_decode(tokens, skip_special_tokens=True)


def in_batches(images: Sequence[Path], size: int, captions_of: Callable[[Sequence[Path]], list[str]]) -> Iterator[str]:
    """Captions in the order of `images`, `size` at once; half as many from then on whenever the device runs out of memory."""
    done = 0
    while done < len(images):
        try:
            texts = captions_of(images[done : done + size])
        except torch.OutOfMemoryError as error:
            if size == 1:
                raise OutOfDeviceMemory("the captioner needs more device memory than there is for one image") from error
            texts = []
        if not texts:  # outside of the handler, which keeps the tensors of the failed batch alive
            size //= 2
            torch.cuda.empty_cache()
            log.warning("captioning in smaller batches", size=size)
        yield from texts
        done += len(texts)


def clean_caption(text: str) -> str:
    """The content of a caption: one line, no word or phrase twice in a row, and nothing about the medium.

    The style phrase says what the medium is. A caption that says it too would share the style's words with the content.
    """
    before = None
    while text != before:
        before = text
        text = " ".join(text.split())
        text = REPEATED.sub(r"\1", text)
        text = ENDING.sub("", OPENING.sub("", text))
    return text


def with_style(style: str, caption: str) -> str:
    """ "8-bit illustration, a red apple"; one of the two alone where the other is empty."""
    return ", ".join(part for part in (" ".join(style.split()), caption) if part)
