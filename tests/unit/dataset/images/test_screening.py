"""What one candidate becomes by itself."""

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.dataset.candidates import Reason, Rejection
from service.dataset.images.decoding import quiet_decoders
from service.dataset.images.screening import Screened, screen
from service.settings.data_prep import DataPrepSettings
from tests.pictures import encoded, sprite


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with quiet_decoders():
        yield


def screened(source: bytes | Path, **values: Any) -> Screened:
    return screen(source, DataPrepSettings.model_validate({"source": "folder", "folder": "x", **values}))


def opened(png: bytes) -> Image.Image:
    return Image.open(BytesIO(png))


def test_the_same_pixels_in_another_format_have_the_same_hash_and_the_same_file() -> None:
    first, second = screened(encoded(sprite(1), "PNG")), screened(encoded(sprite(1), "BMP"))
    assert first.features.source_sha256 != second.features.source_sha256
    assert first.png == second.png
    assert replace(first.features, source_sha256="") == replace(second.features, source_sha256="")
    assert screened(encoded(sprite(2), "PNG")).features.sha256 != first.features.sha256


def test_the_same_bytes_in_another_shape_are_another_image() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8)
    one, other = (encoded(Image.fromarray(pixels.reshape(shape)), "PNG") for shape in ((40, 80, 3), (80, 40, 3)))
    assert screened(one).features.sha256 != screened(other).features.sha256


@pytest.mark.parametrize(
    ("image", "values", "reason", "detail"),
    [
        (sprite(1, (1, 1)), {}, Reason.TOO_SMALL, "1x1"),
        (sprite(1, (31, 40)), {}, Reason.TOO_SMALL, "31x40"),
        (sprite(1, (40, 31)), {}, Reason.TOO_SMALL, "40x31"),
        (sprite(1, (32, 32)), {}, None, ""),
        (sprite(1, (128, 32)), {}, None, ""),
        (sprite(1, (129, 32)), {}, Reason.ASPECT_RATIO, "129x32"),
        (sprite(1, (32, 100)), {"max_aspect": 3}, Reason.ASPECT_RATIO, "32x100"),
        (Image.new("RGB", (40, 40), "teal"), {}, Reason.LOW_ENTROPY, "0.00 bits"),
        (Image.new("RGB", (40, 40), "teal"), {"min_entropy": 0}, None, ""),
    ],
)
def test_an_image_is_judged_by_its_size_its_shape_and_its_information(
    image: Image.Image, values: dict[str, Any], reason: Reason | None, detail: str
) -> None:
    found = screened(encoded(image, "PNG"), **values)
    assert (found.reason, found.detail) == (reason, detail)


def test_it_is_judged_as_it_came_and_kept_as_asked_for() -> None:
    found = screened(encoded(sprite(1, (200, 100)), "PNG"), square="crop", side=50, min_side=100)
    assert found.reason is None
    assert (found.features.source_width, found.features.source_height) == (200, 100)
    assert (found.features.width, found.features.height) == opened(found.png).size == (50, 50)


def test_what_is_left_out_has_a_small_picture_for_the_report() -> None:
    found = screened(encoded(sprite(1, (900, 90)), "PNG"))
    assert found.reason == Reason.ASPECT_RATIO
    assert max(opened(found.png).size) == 96
    assert found.features.source_width == 900


def test_what_cannot_be_decoded_has_no_picture() -> None:
    with pytest.raises(Rejection) as rejection:
        screened(b"<html>")
    assert rejection.value.reason == Reason.NOT_IMAGE


def test_written_images_carry_no_metadata() -> None:
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\0"
    found = screened(encoded(sprite(1), "JPEG", dpi=(300, 300), comment=b"secret", exif=exif))
    with opened(found.png) as written:
        written.load()
        assert written.info == {}
