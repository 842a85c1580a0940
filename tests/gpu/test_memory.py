"""Memory that is not enough: on a GPU for real, elsewhere by a model that says so."""

from pathlib import Path
from typing import Any

import pytest
import torch
from structlog.testing import capture_logs

from service.diffusion.drawing.kept_pictures import KeptPictures
from service.diffusion.drawing.requests import Drawing, Request
from service.diffusion.drawing.sampling import draw_pictures
from service.diffusion.sd15.pipeline import SD15Pipeline, open_pipeline, placed
from service.exits import ExitCode, OutOfDeviceMemory
from service.settings.infer import InferSettings
from service.storage.local import LocalStore
from service.training.trainer import Trainer
from tests.gpu.device import DEVICE, ON_GPU
from tests.learning import trained

DRAWING = Drawing(steps=1, guidance=4.0, resolution=256 if ON_GPU else None, batch_size=4)


def take_away(model: torch.nn.Module, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on there is no memory for more than `most` samples of the model at once; on a GPU for little at all."""
    if ON_GPU:
        torch.cuda.empty_cache()
        more = torch.cuda.memory_allocated() + 48 * 2**20
        torch.cuda.set_per_process_memory_fraction(more / torch.cuda.get_device_properties(DEVICE).total_memory)
        return
    forward = model.forward

    def full(samples: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        if len(samples) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(samples, *arguments, **options)

    monkeypatch.setattr(model, "forward", full)


def test_a_training_ends_with_73_and_the_settings_that_need_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(trainer: Trainer) -> None:
        # The held-out images are measured one by one, and fit.
        take_away(trainer.unwrapped.unet, 8, monkeypatch)

    with pytest.raises(OutOfDeviceMemory) as told:
        trained(tmp_path, "no", DEVICE, started, batch_size=1024 if ON_GPU else 16)
    assert told.value.exit_code == ExitCode.OUT_OF_DEVICE_MEMORY
    assert "TRAIN_GRADIENT_CHECKPOINTING=true" in str(told.value)
    assert "TRAIN_GRADIENT_ACCUMULATION_STEPS=2" in str(told.value)


def test_drawing_halves_its_batches_and_every_picture_is_the_one_of_its_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened() -> SD15Pipeline:
        return placed(open_pipeline(InferSettings(model_base="miniature"))._pipeline, DEVICE, torch.float32)

    requests = [Request("8-bit illustration, a cat", seed) for seed in range(64 if ON_GPU else 4)]
    drawing = DRAWING if not ON_GPU else Drawing(1, 4.0, 256, batch_size=64)
    alone = [opened().draw([request], drawing, lambda: None)[0] for request in requests[:2]]
    pipeline = opened()
    take_away(pipeline.parts.unet, 4, monkeypatch)  # with guidance, twice as many as there are pictures
    with capture_logs() as logs:
        kept = KeptPictures(LocalStore(tmp_path), "kept")
        pictures = draw_pictures(pipeline, requests, drawing, "drawing", kept)
    assert [entry for entry in logs if entry["event"] == "drawing in smaller batches"]
    assert len(pictures) == len(requests)
    for one, other in zip(pictures, alone, strict=False):
        pixels = [torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).float() for picture in (one, other)]
        assert (pixels[0] - pixels[1]).abs().mean() < 1
