"""The held-out loss: always of the same images, timesteps and noise."""

import torch
from diffusers import DDPMScheduler

from service.diffusion.held_out import TIMESTEPS, HeldOut, held_out_losses
from service.diffusion.sd15.denoiser import UNetDenoiser
from service.diffusion.sd15.noise import DDPMNoise
from service.diffusion.sd15.prompts import STATES
from tests.unit.diffusion.building import small_unet


def test_the_held_out_loss_of_a_model_is_the_same_every_time_it_is_measured() -> None:
    held_out = HeldOut(torch.randn(3, 4, 8, 8), {STATES: torch.randn(3, 5, 12)})
    denoiser, scheduler, device = UNetDenoiser(small_unet()), DDPMNoise(DDPMScheduler()), torch.device("cpu")
    first = held_out_losses(denoiser, scheduler, held_out, device)
    torch.manual_seed(99)
    assert first.shape == (3, len(TIMESTEPS))
    assert torch.equal(first, held_out_losses(denoiser, scheduler, held_out, device))
