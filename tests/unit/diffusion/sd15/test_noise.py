"""What the U-Net is asked to predict, and how wrong it is."""

import pytest
import torch
from diffusers import DDPMScheduler
from torch.nn import functional as F

from service.diffusion.objective import denoising_loss
from service.diffusion.sd15.denoiser import UNetDenoiser
from service.diffusion.sd15.noise import DDPMNoise
from service.diffusion.sd15.prompts import STATES
from service.exits import BadConfiguration
from tests.unit.diffusion.building import small_unet


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_loss_is_the_mean_squared_error_to_what_the_model_predicts(prediction: str) -> None:
    unet, scheduler = small_unet(), DDPMScheduler(prediction_type=prediction)
    latents, noise, states = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8), torch.randn(3, 5, 12)
    timesteps = torch.tensor([1, 500, 999])
    with torch.no_grad():
        loss = denoising_loss(
            UNetDenoiser(unet),
            DDPMNoise(scheduler),
            latents=latents,
            noise=noise,
            timesteps=timesteps,
            condition={STATES: states},
        )
        alpha = scheduler.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        predicted = unet(alpha.sqrt() * latents + (1 - alpha).sqrt() * noise, timesteps, states).sample
    target = noise if prediction == "epsilon" else alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
    expected = torch.stack([F.mse_loss(p, t) for p, t in zip(predicted, target, strict=True)])
    torch.testing.assert_close(loss, expected)


def test_a_prediction_type_that_cannot_be_trained_is_named() -> None:
    scheduler = DDPMScheduler(prediction_type="sample")
    sample = torch.zeros(1, 4, 8, 8)
    with pytest.raises(BadConfiguration, match="'sample'"):
        denoising_loss(
            UNetDenoiser(small_unet()),
            DDPMNoise(scheduler),
            latents=sample,
            noise=sample,
            timesteps=torch.tensor([1]),
            condition={STATES: torch.zeros(1, 5, 12)},
        )
