"""Steps a second of the trainer, against the bare U-Net and against a loop that encodes in every step.

`python -m tests.benchmarks.training [RESOLUTION BATCH]…` (256 1 256 2 512 1 512 2 without arguments): Stable Diffusion
1.5's shapes with random weights, the three loops in turns, in one process. It runs the same on a GPU, where there is one.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel

from service.diffusion.held_out import HeldOut
from service.diffusion.lora import lora_parameters
from service.diffusion.objective import denoising_loss
from service.diffusion.sd15.denoiser import UNetDenoiser
from service.diffusion.sd15.lora import add_lora
from service.diffusion.sd15.noise import DDPMNoise
from service.diffusion.sd15.prompts import STATES
from service.settings.train import TrainSettings
from service.training.trainer import Trainer
from tests.noise import random_dataset

ROUNDS = 6
SAMPLES = 8
DEFAULT = ("256", "1", "256", "2", "512", "1", "512", "2")
"""At 512² a round of all three takes one and a half minutes on two cores."""


Models = tuple[UNet2DConditionModel, AutoencoderKL, CLIPTextModel]


def stable_diffusion() -> Models:
    """SD 1.5's architectures, with weights at random."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        scaling_factor=0.18215,
    )
    text = CLIPTextConfig(
        vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
        projection_dim=768,
    )  # fmt: skip
    return unet.requires_grad_(False), vae.requires_grad_(False), CLIPTextModel(text).requires_grad_(False)


def loops(resolution: int, batch: int, models: Models) -> dict[str, Callable[[int], None]]:
    unet, vae, text_encoder = models
    accelerator = Accelerator()
    device = accelerator.device
    settings = TrainSettings(batch_size=batch, resolution=resolution, max_steps=1000, work_dir=Path(tempfile.mkdtemp()))
    side = resolution // 8
    held_out = HeldOut(torch.randn(1, 4, side, side), {STATES: torch.randn(1, 77, 768)})
    data = random_dataset(SAMPLES, (4, side, side), (77, 768), device)
    trainer = Trainer(accelerator, UNetDenoiser(unet), DDPMNoise(DDPMScheduler()), data, held_out, settings)
    vae.to(device)
    text_encoder.to(device)
    parameters = lora_parameters(unet)
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    latents, states = torch.randn(batch, 4, side, side, device=device), torch.randn(batch, 77, 768, device=device)
    timesteps, noise = torch.randint(0, 1000, (batch,), device=device), torch.randn_like(latents)
    pixels, tokens = (
        torch.rand(batch, 3, resolution, resolution, device=device),
        torch.randint(0, 49407, (batch, 77), device=device),
    )

    def bare(_: int) -> None:
        with accelerator.autocast():
            predicted = unet(latents, timesteps, states, return_dict=False)[0]
            F.mse_loss(predicted.float(), noise).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        synchronize(device)

    def ours(step: int) -> None:
        trainer.take_step(step)
        synchronize(device)

    def encoding(_: int) -> None:
        """As diffusers' example does: image and prompt through the frozen models, in every step."""
        with torch.no_grad():
            encoded = vae.encode(pixels).latent_dist.sample() * 0.18215
            prompt: Tensor = text_encoder(tokens)[0]
        with accelerator.autocast():
            loss = denoising_loss(
                UNetDenoiser(unet),
                trainer.noise_scheduler,
                latents=encoded,
                noise=torch.randn_like(encoded),
                timesteps=timesteps,
                condition={STATES: prompt},
            ).mean()
            loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()

    return {"bare": bare, "ours": ours, "encoding": encoding}


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds(action: Callable[[int], None], step: int) -> float:
    begin = time.perf_counter()
    action(step)
    return time.perf_counter() - begin


def rotated(names: list[str], by: int) -> list[str]:
    return [names[(place + by) % len(names)] for place in range(len(names))]


def ratio(taken: dict[str, list[float]], name: str) -> str:
    """How many times the seconds of ours the other one takes: the median of the rounds, and their range."""
    values = [other / ours for other, ours in zip(taken[name], taken["ours"], strict=True)]
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


class Stub(UNetDenoiser):
    """In the U-Net's place: nothing but the parameters of its LoRA, each in use."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        super().__init__(nn.Module())  # type: ignore[arg-type]
        self.own = nn.ParameterList(nn.Parameter(parameter.detach().clone()) for parameter in parameters)

    def forward(self, noisy: Tensor, *_: object) -> Tensor:
        return noisy * torch.stack([parameter.flatten()[0] for parameter in self.own]).sum()


def host_overhead(batch: int, steps: int = 300) -> float:
    """Milliseconds of a step on the miniature's shapes that are neither the U-Net's nor the optimizer's."""
    from service.diffusion.sd15.components import load_components

    unet = load_components(TrainSettings(model_base="miniature")).unet
    add_lora(unet, TrainSettings())
    stub = Stub(lora_parameters(unet))
    settings = TrainSettings(
        profile="miniature", batch_size=batch, max_steps=10 * steps, work_dir=Path(tempfile.mkdtemp())
    )
    accelerator = Accelerator()
    shape = (unet.config["in_channels"], unet.config["sample_size"], unet.config["sample_size"])
    data = random_dataset(SAMPLES, shape, (77, unet.config["cross_attention_dim"]), accelerator.device)
    trainer = Trainer(accelerator, stub, DDPMNoise(DDPMScheduler()), data, HeldOut(torch.zeros(1), {}), settings)
    noisy = torch.randn(batch, *shape, device=accelerator.device)

    def bare(_: int) -> None:
        stub(noisy).square().mean().backward()
        trainer.optimizer.step()
        trainer.optimizer.zero_grad(set_to_none=True)

    gaps = []
    for step in range(steps):
        gaps.append(seconds(lambda s: (trainer.take_step(s), None)[1], step) - seconds(bare, step))
    return 1000 * statistics.median(gaps)


def main(arguments: list[str]) -> None:
    for batch in (1, 2, 16):
        sys.stdout.write(f"host overhead a step, miniature, batch {batch}: {host_overhead(batch):.2f} ms\n")
    models = stable_diffusion()
    add_lora(models[0], TrainSettings(profile="report"))
    sizes = [int(argument) for argument in arguments or DEFAULT]
    for resolution, batch in zip(sizes[::2], sizes[1::2], strict=True):
        actions = loops(resolution, batch, models)
        for action in actions.values():
            action(0)  # the first step of each shape also prepares kernels and memory
        taken: dict[str, list[float]] = {name: [] for name in actions}
        for step in range(1, ROUNDS + 1):
            # Each comes first, second and third in turn, and is compared within its round: the machine has its moods.
            for name in rotated(list(actions), step):
                taken[name].append(seconds(actions[name], step))
        middle = {name: statistics.median(values) for name, values in taken.items()}
        sys.stdout.write(
            f"{resolution}² batch {batch}: bare {middle['bare']:.2f} s, ours {middle['ours']:.2f} s, encoding every step "
            f"{middle['encoding']:.2f} s a step; ours / bare {ratio(taken, 'bare')} of the steps a second, "
            f"{ratio(taken, 'encoding')}x the encoding loop\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
