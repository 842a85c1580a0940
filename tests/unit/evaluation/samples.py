"""Samples of made-up pictures and judges, of which the true answers are known."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.artifacts.kinds.evaluation import Finding
from service.artifacts.kinds.measurements import Measured, Measurements
from service.diffusion.images import CaptionedImage
from service.evaluation.criteria.criterion import Criterion
from service.evaluation.sample import Sample, Sides
from service.settings.evaluate import EvaluateSettings

SIDE = 32
Pictures = list[Image.Image]


class Colours:
    """Judges for which an image is its colours, in quarters: enough to tell sets of made-up pictures apart."""

    def style_features(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        return (
            np.stack([np.asarray(image.resize((2, 2), Image.Resampling.BOX), np.float32).ravel() for image in images])
            / 255
        )

    def clip_embeddings(self, images: Iterable[Image.Image]) -> NDArray[np.float32]:
        features = self.style_features(list(images)) + 1e-3
        return features / np.linalg.norm(features, axis=1, keepdims=True)

    def clip_scores(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        assert len(images) == len(prompts)
        return [25.0] * len(images)

    def reference(self, images: Sequence[Image.Image]) -> list[Image.Image]:
        return list(images)

    def held_out_losses(self, images: Sequence[CaptionedImage]) -> Sides[list[float]]:
        return Sides([0.2] * len(images), [0.1] * len(images))


@dataclass(frozen=True)
class DataSet:
    """Images of a data set in a folder, with captions in one style."""

    folder: Path

    def images(self, split: str, pictures: Sequence[Image.Image]) -> list[CaptionedImage]:
        found = []
        for number, picture in enumerate(pictures):
            path = self.folder / f"{split}-{number:03d}.png"
            picture.save(path)
            found.append(CaptionedImage(path, f"8-bit illustration, {split} {number}"))
        return found


def patterns(seed: int, count: int, red: tuple[int, int] = (0, 256)) -> Pictures:
    """Different pictures of 16 squares each, whose red lies in a range and whose other colours are any."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        pixels[..., 0] = rng.integers(*red, (4, 4))
        found.append(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.NEAREST))
    return found


def sample(folder: Path, base: Pictures, lora: Pictures, variations: int = 1, **more: Any) -> Sample:
    """Pictures of both sides, of `variations` for each prompt. more: held_out, training, without_style, champion."""
    dataset = DataSet(folder)
    prompts = [f"8-bit illustration, a {number // variations}" for number in range(len(base))]
    splits = {name: dataset.images(name, more.pop(name, patterns(7, 6))) for name in ("held_out", "training")}
    return Sample(prompts, Sides(base, lora), style="8-bit illustration", judges=Colours(), **splits, **more)


def finding(criterion: Criterion, of: Sample, **thresholds: float) -> Finding:
    """What the criterion finds in the sample."""
    arrays = {name: np.asarray(array) for name, array in criterion.measure(of).items()}
    variations = len(of.prompts) // len(set(of.prompts))
    names = [image.name for image in of.held_out]
    measured = Measured(images="runs/x/images/y", prompts=list(of.prompts), variations=variations, held_out=names)
    settings = EvaluateSettings(variations=variations, **thresholds)
    return criterion.examine(Measurements(measured, arrays), settings)
