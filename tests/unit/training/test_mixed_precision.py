"""bf16 as on a GPU, on the CPU: the base in bf16 under autocast, the LoRA and its optimizer in float32."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import DDPMScheduler

from service.diffusion.objective import denoising_loss
from service.diffusion.sd15.components import load_components
from service.diffusion.sd15.noise import DDPMNoise
from service.training.trainer import Trainer
from tests.learning import trained

STEPS = 30


def of_thirty_steps(folder: Path, precision: str) -> Trainer:
    often = {"max_steps": STEPS, "validate_every": STEPS, "checkpoint_every": STEPS, "log_every": 5}
    # Attention alone, as it is there: most CPUs take minutes for the gradients of convolutions in bf16.
    return trained(folder, precision, torch.device("cpu"), batch_size=8, **often)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Trainer, Trainer]]:
    folder = tmp_path_factory.mktemp("precision")
    yield of_thirty_steps(folder, "no"), of_thirty_steps(folder, "bf16")
    AcceleratorState._reset_state(reset_partial_state=True)


def test_the_base_is_in_bf16_and_all_that_learns_is_in_float32(both: tuple[Trainer, Trainer]) -> None:
    _, half = both
    frozen = {parameter.dtype for parameter in half.unwrapped.parameters() if not parameter.requires_grad}
    assert frozen == {torch.bfloat16}
    assert {parameter.dtype for parameter in half.parameters} == {torch.float32}
    states = [tensor for state in half.optimizer.state.values() for tensor in state.values() if tensor.ndim]
    assert {tensor.dtype for tensor in states} == {torch.float32}


def test_the_loss_follows_that_of_float32(both: tuple[Trainer, Trainer]) -> None:
    whole, half = (trainer.progress.points for trainer in both)
    assert len(whole) == STEPS // 5
    for expected, point in zip(whole, half, strict=True):
        assert point.loss == pytest.approx(expected.loss, rel=0.02)
    for expected, measured in zip(both[0].progress.measurements, both[1].progress.measurements, strict=True):
        assert measured.loss == pytest.approx(expected.loss, rel=0.02)


def test_lora_a_moves(both: tuple[Trainer, Trainer]) -> None:
    # In bf16 a step of 2e-3 on a weight of 0.25 would be lost in rounding for most of them.
    _, half = both
    parts = load_components(half.settings)
    torch.manual_seed(0)
    start = dict(parts.trainable(half.settings, torch.float32).named_parameters())
    moved = [
        (parameter.detach() != start[name].detach()).float().mean()
        for name, parameter in half.unwrapped.named_parameters()
        if "lora_A" in name
    ]
    assert torch.stack(moved).mean() > 0.99


@pytest.mark.parametrize("timestep", [0, 1])
def test_the_first_timesteps_add_their_noise(timestep: int) -> None:
    seen: list[torch.Tensor] = []

    class Noting(torch.nn.Module):
        def forward(self, noisy: torch.Tensor, *_: object) -> torch.Tensor:
            seen.append(noisy)
            return noisy

    scheduler = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    latents, noise = torch.randn(1, 4, 16, 16), torch.randn(1, 4, 16, 16)
    timesteps = torch.tensor([timestep])
    with torch.autocast("cpu", torch.bfloat16):
        denoising_loss(
            Noting(),
            DDPMNoise(scheduler),
            latents=latents.bfloat16(),
            noise=noise.bfloat16(),
            timesteps=timesteps,
            condition={},
        )
    alpha = scheduler.alphas_cumprod[timestep]
    expected = (1 - alpha).sqrt() * noise.bfloat16().float()
    added = seen[0] - alpha.sqrt() * latents.bfloat16().float()
    assert (added - expected).norm() < 1e-4 * expected.norm()
