"""Captioned images of a published data set, as the models take them."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms import v2

from service.exits import BadData

Split = Literal["train", "validation"]


@dataclass(frozen=True)
class CaptionedImage:
    path: Path
    caption: str

    @property
    def name(self) -> str:
        return self.path.name


def read_split(dataset: Path, split: Split) -> list[CaptionedImage]:
    """The images of one split in the order of its metadata.csv; raises BadData for one without file or caption."""
    folder = dataset / "imagefolder" / split
    metadata = folder / "metadata.csv"
    if not metadata.exists():
        raise BadData(f"{dataset} is no data set with a split {split!r}: {metadata.name} is missing there")
    with metadata.open(newline="", encoding="utf-8") as lines:
        images = [CaptionedImage(folder / row["file_name"], row["caption"] or "") for row in csv.DictReader(lines)]
    for image in images:
        if not image.caption:
            raise BadData(f"{split}/{image.name} has no caption in {metadata.name}")
        if not image.path.exists():
            raise BadData(f"{split}/{image.name} stands in {metadata.name} and does not exist")
    return images


def load_pixels(images: Sequence[CaptionedImage], resolution: int) -> Tensor:
    """Resizes the shorter side to `resolution` and crops the centre. Returns (B, 3, R, R) float32 in [-1, 1]."""
    transform = v2.Compose(
        [
            v2.Resize(resolution, interpolation=v2.InterpolationMode.LANCZOS),
            v2.CenterCrop(resolution),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )
    return torch.stack([transform(open_image(image)) for image in images])


def open_image(image: CaptionedImage) -> Image.Image:
    try:
        return Image.open(image.path).convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise BadData(f"{image.name} of the data set cannot be read as an image: {error}") from error
