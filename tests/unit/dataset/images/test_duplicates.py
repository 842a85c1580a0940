"""Which images look alike."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from service import miniature
from service.dataset.images.duplicates import near_duplicates
from service.diffusion.looks import COLOUR_DISTANCE, Look, look_of
from service.settings.data_prep import DataPrepSettings

DISTANCE = DataPrepSettings.model_fields["near_distance"].default
SAMPLES = sorted(miniature.SAMPLES.glob("*.png"))


def samples() -> list[Image.Image]:
    return [Image.open(file).convert("RGB") for file in SAMPLES]


def again(image: Image.Image, file_format: str, **options: Any) -> Image.Image:
    buffer = BytesIO()
    image.save(buffer, file_format, **options)
    return Image.open(buffer).convert("RGB")


def enlarged(image: Image.Image, factor: float) -> Image.Image:
    width, height = image.size
    return image.resize((round(width * factor), round(height * factor)), Image.Resampling.LANCZOS)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: again(image, "JPEG", quality=30),
        lambda image: again(image, "JPEG", quality=90),
        lambda image: again(image, "WEBP", quality=50),
        lambda image: again(image, "GIF"),
        lambda image: enlarged(image, 0.5),
        lambda image: enlarged(image, 2),
    ],
    ids=["jpeg 30", "jpeg 90", "webp 50", "gif", "half", "double"],
)
def test_an_image_that_was_encoded_or_sized_anew_looks_the_same_and_like_no_other(change: Any) -> None:
    originals = samples()
    looks = [look_of(image) for image in originals] + [look_of(change(image)) for image in originals]
    assert near_duplicates(looks, DISTANCE) == [*range(len(originals))] * 2


def test_the_same_drawing_in_another_colour_is_another_image() -> None:
    hearts = [image for file, image in zip(SAMPLES, samples(), strict=True) if "heart" in file.stem]
    assert len(hearts) >= 3
    greys = [look_of(heart.convert("L").convert("RGB")) for heart in hearts]
    assert len({look.dhash for look in greys}) < len(hearts) or near_duplicates(greys, DISTANCE)[1] == 0
    assert near_duplicates([look_of(heart) for heart in hearts], DISTANCE) == [*range(len(hearts))]


def plain(looks: list[Look], distance: int) -> list[int]:
    """By the definition alone."""

    def near(one: Look, other: Look) -> bool:
        channels = zip(one.colour.to_bytes(3, "big"), other.colour.to_bytes(3, "big"), strict=True)
        return (
            (one.phash ^ other.phash).bit_count() <= distance
            and (one.dhash ^ other.dhash).bit_count() <= distance
            and all(abs(a - b) <= COLOUR_DISTANCE for a, b in channels)
        )

    labels = list(range(len(looks)))
    for _ in looks:
        for i, one in enumerate(looks):
            for j, other in enumerate(looks):
                if near(one, other):
                    labels[i] = labels[j] = min(labels[i], labels[j])
    return labels


bits = st.sampled_from([0, 1, 3, 7, 0xFF, 0xFFFF, (1 << 64) - 1, (1 << 64) - 2, 1 << 63])
colours = st.sampled_from([0, 0x181818, 0x191919, 0x303030, 0xFFFFFF, 0xFF0000])


@given(st.lists(st.builds(Look, bits, bits, colours), max_size=9), st.integers(0, 9))
def test_clusters_are_those_of_the_definition(looks: list[Look], distance: int) -> None:
    assert near_duplicates(looks, distance) == plain(looks, distance)


def test_many_images_are_compared_in_pieces_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    dice = np.random.default_rng(0)
    looks = [Look(int(a), int(b), 0) for a, b in dice.integers(0, 1 << 10, (300, 2))]
    whole = near_duplicates(looks, 1)
    monkeypatch.setattr("service.dataset.images.duplicates.PAIRS_AT_ONCE", 1000)
    assert near_duplicates(looks, 1) == whole
    assert 1 < len(set(whole)) < 300


def test_a_distance_below_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        near_duplicates([], -1)
