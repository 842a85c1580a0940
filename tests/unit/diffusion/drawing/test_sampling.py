"""Drawing where memory is short: every picture is drawn, in its place, in batches that fit."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from structlog.testing import capture_logs

from service.diffusion.drawing.kept_pictures import KeptPictures
from service.diffusion.drawing.requests import Drawing, Request
from service.diffusion.drawing.sampling import draw_pictures
from service.exits import ExitCode, OutOfDeviceMemory, judge
from service.stopping import StopCheck
from service.storage.local import LocalStore

FULL = [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]


class Device:
    """Holds so many pictures at once; a picture is as wide as its seed."""

    def __init__(self, holds: int, error: Exception = FULL[0]) -> None:
        self.holds, self.error, self.asked = holds, error, list[int]()

    def draw(self, requests: Sequence[Request], _: Drawing, __: StopCheck) -> list[Image.Image]:
        self.asked.append(len(requests))
        if len(requests) > self.holds:
            raise self.error
        return [Image.new("RGB", (request.seed, 1)) for request in requests]


def drawn(device: Device, count: int, folder: Path, batch: int = 8) -> list[int]:
    requests = [Request("a cat", seed) for seed in range(1, count + 1)]
    drawing = Drawing(steps=1, guidance=1.0, resolution=None, batch_size=batch)
    pictures = draw_pictures(device, requests, drawing, "drawing", KeptPictures(LocalStore(folder), "kept"))  # type: ignore[arg-type]
    return [picture.width for picture in pictures]


@pytest.mark.parametrize("error", FULL, ids=["device", "host"])
def test_batches_are_halved_until_they_fit_and_every_picture_is_in_its_place(error: Exception, tmp_path: Path) -> None:
    device = Device(3, error)
    with capture_logs() as logs:
        assert drawn(device, 20, tmp_path) == list(range(1, 21))
    assert device.asked == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]
    assert [entry["size"] for entry in logs if entry["event"] == "drawing in smaller batches"] == [4, 2]


def test_where_all_fits_batches_are_as_large_as_they_are_set(tmp_path: Path) -> None:
    device = Device(8)
    assert drawn(device, 20, tmp_path) == list(range(1, 21))
    assert device.asked == [8, 8, 4]


def test_a_picture_that_does_not_fit_alone_is_out_of_device_memory(tmp_path: Path) -> None:
    with pytest.raises(OutOfDeviceMemory, match="one picture needs more device memory") as told:
        drawn(Device(0), 4, tmp_path)
    assert judge(told.value)[0] == ExitCode.OUT_OF_DEVICE_MEMORY


def test_another_failure_is_no_matter_of_the_batch(tmp_path: Path) -> None:
    device = Device(3, RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        drawn(device, 4, tmp_path)
    assert device.asked == [4]
