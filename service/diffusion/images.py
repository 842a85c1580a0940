"""Captioned images of a published data set, as the models take them."""

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from service.artifacts.kinds.dataset import Split, read_metadata
from service.diffusion.framing import Framing, covering_size
from service.exits import BadData


@dataclass(frozen=True)
class CaptionedImage:
    """A file of a data set and its caption, which is never empty."""

    path: Path
    caption: str

    @property
    def name(self) -> str:
        """The file's name, by which messages and pages call the image."""
        return self.path.name


def read_split(dataset: Path, split: Split) -> list[CaptionedImage]:
    """The images of one split in the order of its metadata.csv; raises BadData for one without file or caption."""
    return [CaptionedImage(path, caption) for path, caption in read_metadata(dataset, split)]


def image_size(image: CaptionedImage) -> tuple[int, int]:
    """Width and height in pixels, from the head of the file; raises BadData, naming it, when it cannot be read."""
    try:
        with Image.open(image.path) as opened:
            return opened.size
    except (UnidentifiedImageError, OSError) as error:
        raise _unreadable(image, error) from error


def load_pixels(image: CaptionedImage, framing: Framing) -> Tensor:
    """Resizes the image to cover the frame and crops it there. Returns (3, H, W) float32 in [-1, 1].

    Resized by Lanczos, as the report's recipe says. Raises BadData, naming the image, when it cannot be read.
    """
    opened = open_image(image)
    width, height = covering_size(opened.size, framing)
    resized = functional.resize(opened, [height, width], interpolation=v2.InterpolationMode.LANCZOS)
    top = round((height - framing.height) * framing.top)
    left = round((width - framing.width) * framing.left)
    cropped = functional.crop(resized, top, left, framing.height, framing.width)
    return functional.to_dtype(functional.to_image(cropped), torch.float32, scale=True) * 2 - 1


def open_image(image: CaptionedImage) -> Image.Image:
    """The whole image in RGB; raises BadData, naming it, when it cannot be read."""
    try:
        return Image.open(image.path).convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise _unreadable(image, error) from error


def _unreadable(image: CaptionedImage, error: Exception) -> BadData:
    return BadData(f"{image.name} of the data set cannot be read as an image: {error}")
