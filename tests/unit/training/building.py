"""Small trainers, and what tests compare of them."""

from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler

from service.artifacts.runs import Run
from service.diffusion.held_out import HeldOut
from service.diffusion.sd15.denoiser import UNetDenoiser
from service.diffusion.sd15.lora import add_lora
from service.diffusion.sd15.noise import DDPMNoise
from service.diffusion.sd15.prompts import STATES
from service.settings.train import TrainSettings
from service.storage.opening import open_store
from service.training.callbacks import Checkpoints
from service.training.encoded.samples import EncodedDataset
from service.training.processes.coordinator import Coordinator
from service.training.randomness import Draw
from service.training.status import StatusReporter
from service.training.trainer import Trainer
from tests.noise import random_dataset
from tests.unit.diffusion.building import small_unet

SHAPE = (4, 8, 8)


def encoded(count: int = 5) -> EncodedDataset:
    return random_dataset(count, SHAPE, (5, 12))


def plain_sample(data: EncodedDataset, index: int, d: Draw) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents and prompt states as the formulas have them."""
    row = data.posteriors.rows[f"{index} mirrored" if d.flip else str(index)]
    state = data.condition_rows[str(len(data) if d.drop_caption else index)][STATES]
    return row["mean"] + row["deviation"] * d.posterior_noise, state


class KeptSnapshots:
    """In place of the uploads: each snapshot is kept at once, in a folder named by its step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.steps: list[int] = []
        folder.mkdir(exist_ok=True)

    def submit(self, folder: Path, step: int) -> None:
        folder.rename(self.folder / str(step))
        self.steps.append(step)

    def check(self) -> None: ...

    def finish(self, _: object) -> None: ...


def checkpoints_in(kept: KeptSnapshots, settings: TrainSettings) -> Checkpoints:
    """The job's own callback, for one process."""
    status = StatusReporter(Run(open_store(str(kept.folder / "artifacts")), "r"), settings)
    return Checkpoints(kept.folder / "local", kept, Coordinator(Accelerator(cpu=True)), status, settings)


def settings_for(**options: object) -> TrainSettings:
    return TrainSettings(**{"batch_size": 4, "max_steps": 6, "learning_rate": 1e-2, "checkpoint_every": 3, **options})


def trainer_for(
    settings: TrainSettings,
    *,
    samples: EncodedDataset | None = None,
    held_out: int = 1,
    accelerator: Accelerator | None = None,
) -> Trainer:
    """A trainer of a small U-Net; `held_out` images are measured. On the CPU, unless `accelerator` says otherwise."""
    unet = small_unet()
    torch.manual_seed(settings.seed)
    add_lora(unet, settings)
    measured = HeldOut(torch.ones(held_out, *SHAPE), {STATES: torch.zeros(held_out, 5, 12)})
    place = accelerator or Accelerator(cpu=True)
    return Trainer(place, UNetDenoiser(unet), DDPMNoise(DDPMScheduler()), samples or encoded(), measured, settings)


def trained_state(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.lora().items()}


def distance(state: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Of all tensors together, relative to the norm of the second."""
    both = [torch.cat([one[name].flatten() for name in sorted(other)]) for one in (state, other)]
    return float((both[0] - both[1]).norm() / both[1].norm())
