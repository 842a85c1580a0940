"""A short training of the miniature, on any device and in any precision, by the classes that the job uses."""

from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from service import miniature
from service.diffusion.images import CaptionedImage
from service.diffusion.sd15.components import load_components
from service.settings.train import TrainSettings
from service.storage.opening import open_store
from service.training.encoded.loading import encode_dataset
from service.training.processes.coordinator import Coordinator
from service.training.trainer import Trainer

STEPS = 12
DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
Started = Callable[[Trainer], None]


def trained(
    folder: Path,
    precision: str,
    device: torch.device,
    started: Started = lambda _: None,
    with_scaler: bool = False,
    **options: object,
) -> Trainer:
    """A trainer that has come to its end. started: is given it before its first step; with_scaler: as in fp16, on a CPU too."""
    settings = TrainSettings.model_validate(
        {
            "profile": "miniature", "model_base": "miniature", "work_dir": folder, "max_steps": STEPS, "batch_size": 4,
            "log_every": 4, "validate_every": STEPS, "checkpoint_every": STEPS, "lr_scheduler": "constant",
            "target_modules": ["attention"], "rank": 4, "lora_alpha": 4, "learning_rate": 2e-3,
            "mixed_precision": precision, **options,
        }
    )  # fmt: skip
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision=precision)
    if device.type == "cpu" and with_scaler:
        accelerator.scaler = torch.amp.GradScaler("cpu")  # that of fp16, which Accelerate refuses on a CPU
    parts = load_components(settings)
    images = [
        CaptionedImage(path, f"8-bit illustration, {path.stem}") for path in sorted(miniature.SAMPLES.glob("*.png"))[:8]
    ]
    store = open_store(str(folder / "artifacts"))
    data, held_out, _ = encode_dataset(
        parts, images, images[:2], also=[], store=store, coordinator=Coordinator(accelerator), settings=settings
    )
    torch.manual_seed(0)
    denoiser = parts.trainable(settings, DTYPES[precision])
    trainer = Trainer(accelerator, denoiser, parts.noise_scheduler, data, held_out, settings)
    started(trainer)
    trainer.fit([])
    return trainer
