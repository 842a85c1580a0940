"""The held-out loss, measured by all processes together."""

import math
from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch import nn

from service.diffusion.family import NoiseScheduler
from service.diffusion.held_out import HeldOut, held_out_losses


def measure_held_out(
    accelerator: Accelerator,
    denoiser: nn.Module,
    noise_scheduler: NoiseScheduler,
    held_out: HeldOut,
    on_prediction_step: Callable[[], None],
) -> tuple[float, ...]:
    """Loss at each of the fixed timesteps, the mean over the images.

    Each process measures its share of them and calls `on_prediction_step` after each, as often as every other process;
    all of them learn the same figures.
    """
    processes, device = accelerator.num_processes, accelerator.device
    mine = range(accelerator.process_index, len(held_out), processes)
    with accelerator.autocast():
        losses = torch.zeros(())
        for place in range(math.ceil(len(held_out) / processes)):
            only = mine[place : place + 1]
            losses = losses + held_out_losses(denoiser, noise_scheduler, held_out, device, only)
            on_prediction_step()
        # Zeros are in the others' places, so the sum is exact, whatever the number of processes.
        losses = accelerator.reduce(losses.to(device), "sum").cpu()
    return tuple(losses.mean(dim=0).tolist())
