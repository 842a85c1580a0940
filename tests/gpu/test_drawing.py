"""Drawing in half precision: the pictures of float32 but for rounding, the same ones each time, and none of them black."""

from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image

from service.diffusion.drawing.requests import Drawing, Request
from service.diffusion.sd15.pipeline import SD15Pipeline, open_pipeline, placed
from service.settings.infer import InferSettings
from tests.gpu.device import DEVICE

DRAWING = Drawing(steps=2, guidance=4.0, resolution=None, batch_size=1)
REQUESTS = [Request("8-bit illustration, a house", 4)]
HALVES = [torch.bfloat16, torch.float16]
LARGE = 1e5
"""By which the activations of an autoencoder are made larger than float16 can hold."""


def opened(device: torch.device, dtype: torch.dtype) -> SD15Pipeline:
    return placed(open_pipeline(InferSettings(model_base="miniature"))._pipeline, device, dtype)


def drawn(pipeline: SD15Pipeline) -> Image.Image:
    return pipeline.draw(REQUESTS, DRAWING, lambda: None)[0]


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean over all channels, of 255."""
    return float(np.abs(np.asarray(one, dtype=float) - np.asarray(other, dtype=float)).mean())


@cache
def whole() -> Image.Image:
    return drawn(opened(torch.device("cpu"), torch.float32))


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
def test_a_picture_is_that_of_float32_on_the_cpu_and_the_same_each_time(dtype: torch.dtype) -> None:
    pipeline = opened(DEVICE, dtype)
    first = drawn(pipeline)
    assert np.asarray(first).std() > 20
    assert difference(first, whole()) < 2
    assert first.tobytes() == drawn(pipeline).tobytes()


def large(pipeline: SD15Pipeline) -> SD15Pipeline:
    """With an autoencoder whose activations are larger; what it decodes is normalised, and remains a picture."""
    first = pipeline.parts.vae.decoder.conv_in
    with torch.no_grad():
        first.weight.mul_(LARGE)
        first.bias.mul_(LARGE)
    return pipeline


def test_an_autoencoder_that_overflows_float16_draws_no_black_picture() -> None:
    expected = drawn(large(opened(torch.device("cpu"), torch.float32)))
    pipeline = large(opened(DEVICE, torch.float16))
    assert pipeline.parts.unet.dtype == torch.float16
    found = drawn(pipeline)
    assert np.asarray(found).std() > 20
    assert difference(found, expected) < 2
