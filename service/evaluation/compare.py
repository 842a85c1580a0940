"""compare.html: pairs of pictures to vote on, without a word which is of the LoRA."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from service.evaluation.blind import lora_is_left, order_of_pairs
from service.evaluation.embedding import jpeg_uri, png_uri
from service.evaluation.sample import Sides
from service.templates import rendered

PAGE = Path(__file__).with_name("compare.html.jinja")
SCRIPT = Path(__file__).with_name("compare.js")
MOST_PAIRS = 64
"""More than anybody votes on; with pictures of at most 512 pixels the page stays below some 15 MB."""
LARGEST_SIDE = 512
SMALL = 128
"""Up to this side a PNG is small enough, and shows each pixel as it is."""


@dataclass(frozen=True)
class Pairs:
    """What there is to compare: the images by path and version, the prompt of each picture, and both sides' pictures."""

    images: str
    version: str
    prompts: Sequence[str]
    pictures: Sides[Sequence[Image.Image]]


@dataclass(frozen=True)
class ShownPair:
    """A pair as the page shows it, both pictures as data: URIs."""

    picture: int
    prompt: str
    left: str
    right: str


def comparison_page(pairs: Pairs) -> str:
    """The page. It needs no other file and no network; the same pictures give the same page."""
    script = SCRIPT.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    shown = order_of_pairs(pairs.version, pairs.prompts)[:MOST_PAIRS]
    return rendered(
        PAGE,
        images=pairs.images,
        version=pairs.version,
        pairs=[_shown(pairs, picture) for picture in shown],
        script=script,
        script_hash=f"sha256-{digest}",
    )


def _shown(pairs: Pairs, picture: int) -> ShownPair:
    base, lora = (_embedded(side[picture]) for side in (pairs.pictures.base, pairs.pictures.lora))
    left, right = (lora, base) if lora_is_left(pairs.version, picture) else (base, lora)
    return ShownPair(picture, pairs.prompts[picture], left, right)


def _embedded(picture: Image.Image) -> str:
    """By size alone PNG or JPEG, so that both sides have the same form; without the texts that tell how it was drawn."""
    if max(picture.size) <= SMALL:
        return png_uri(picture)
    picture = picture.copy()
    picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    return jpeg_uri(picture)
