"""Which part of an image the model sees."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from service.diffusion.framing import Framing, bucket_of, covering_size, square
from service.diffusion.images import CaptionedImage, load_pixels

sides = st.integers(1, 3000)
sizes = st.tuples(sides, sides)


def picture(folder: Path, width: int, height: int) -> CaptionedImage:
    noise = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "picture.png")
    return CaptionedImage(folder / "picture.png", "noise")


@pytest.mark.parametrize("size", [(64, 64), (97, 64), (64, 131), (200, 33), (31, 40), (1000, 999)])
def test_the_square_is_torchvisions_resize_and_centre_crop(size: tuple[int, int], tmp_path: Path) -> None:
    image = picture(tmp_path, *size)
    recipe = v2.Compose(
        [
            v2.Resize(64, interpolation=v2.InterpolationMode.LANCZOS),
            v2.CenterCrop(64),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )
    torch.testing.assert_close(load_pixels(image, square(64)), recipe(Image.open(image.path)))


def test_a_crop_lies_where_its_framing_says(tmp_path: Path) -> None:
    image = picture(tmp_path, 96, 64)
    left, right = (load_pixels(image, Framing(64, 64, left=share)) for share in (0.0, 1.0))
    whole = load_pixels(image, Framing(96, 64))
    assert torch.equal(left, whole[:, :, :64])
    assert torch.equal(right, whole[:, :, 32:])


@given(image=sizes, frame=st.tuples(st.integers(8, 1024), st.integers(8, 1024)))
def test_a_resized_image_covers_its_frame_and_touches_it_on_one_side(
    image: tuple[int, int], frame: tuple[int, int]
) -> None:
    width, height = covering_size(image, Framing(*frame))
    assert width >= frame[0]
    assert height >= frame[1]
    assert width == frame[0] or height == frame[1]


@given(image=sizes, enlarge=st.floats(1, 4))
def test_a_bucket_has_the_steps_sides_a_bounded_area_and_enlarges_within_the_limit(
    image: tuple[int, int], enlarge: float
) -> None:
    width, height = bucket_of(image, 512, 64, enlarge)
    assert width % 64 == height % 64 == 0
    assert min(width, height) >= 64
    # An image that is very long, or smaller than one step, gets the smallest side there is.
    if min(width, height) > 64:
        assert width * height <= 512**2
        assert max(width / image[0], height / image[1]) <= enlarge


@pytest.mark.parametrize(
    ("image", "bucket"),
    [
        ((512, 512), (512, 512)),
        ((2000, 2000), (512, 512)),
        ((1600, 1200), (576, 448)),
        ((1200, 1600), (448, 576)),
        ((1920, 1080), (640, 384)),
        ((300, 300), (256, 256)),
        ((400, 200), (384, 192)),
    ],
)
def test_buckets_follow_the_image(image: tuple[int, int], bucket: tuple[int, int]) -> None:
    assert bucket_of(image, 512, 64, 1.0) == bucket


@given(image=st.tuples(st.integers(512, 3000), st.integers(512, 3000)))
def test_of_large_images_a_bucket_loses_little(image: tuple[int, int]) -> None:
    if max(image) / min(image) > 2:
        return
    width, height = bucket_of(image, 512, 64, 1.0)
    assert abs(math.log(width / height * image[1] / image[0])) < 0.15
    assert width * height >= 0.7 * 512**2
