"""What is compared with the held-out images has gone through the autoencoder; so do they."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service import miniature
from service.evaluation.judges import LoadedJudges
from service.evaluation.metrics import kid
from service.settings.evaluate import EvaluateSettings


@pytest.fixture(scope="module")
def samples() -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in sorted(miniature.SAMPLES.glob("*.png"))[:16]]


def judges(**settings: str) -> LoadedJudges:
    return LoadedJudges(EvaluateSettings(model_base="miniature", **settings), Path("unused"), 64)  # type: ignore[arg-type]


def test_the_reference_is_what_the_autoencoder_leaves_of_the_images(samples: list[Image.Image]) -> None:
    reference = judges().reference(samples)
    assert [image.size for image in reference] == [image.size for image in samples]
    for before, after in zip(samples, reference, strict=True):
        difference = np.abs(np.asarray(before, np.float32) - np.asarray(after, np.float32)).mean()
        assert 0 < difference < 16


def test_what_the_autoencoder_cannot_draw_is_no_distance_to_the_style(samples: list[Image.Image]) -> None:
    ours, as_they_are = judges(), judges(style_reference="original")
    drawn = ours.style_features(ours.reference(samples[8:]))
    others = {judge: judge.style_features(judge.reference(samples[:8])) for judge in (ours, as_they_are)}
    assert kid(others[ours], drawn) < 0.1 < kid(others[as_they_are], drawn)


def test_images_are_compared_as_they_are_where_that_is_asked_for(samples: list[Image.Image]) -> None:
    reference = judges(style_reference="original").reference(samples)
    assert all(before is after for before, after in zip(samples, reference, strict=True))
