"""The trainer against an implementation that is deliberately plain: without PEFT, Accelerate, scheduler and optimizer."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from service import miniature
from service.diffusion.family import Condition
from service.diffusion.framing import square
from service.diffusion.held_out import HeldOut
from service.diffusion.images import CaptionedImage, load_pixels
from service.diffusion.sd15.components import load_components
from service.diffusion.sd15.denoiser import UNetDenoiser
from service.diffusion.sd15.lora import add_lora
from service.diffusion.sd15.noise import DDPMNoise
from service.diffusion.sd15.prompts import STATES
from service.settings.train import TrainSettings
from service.storage.opening import open_store
from service.training.encoded.loading import encode_dataset
from service.training.processes.coordinator import Coordinator
from service.training.randomness import Draw, draw, global_batch
from service.training.trainer import Trainer
from tests.unit.diffusion.building import small_unet
from tests.unit.training.building import SHAPE, encoded, plain_sample

STEPS = 20
RESOLUTION = 32
SAMPLES = miniature.SAMPLES
TARGETS = ("to_k", "to_q", "to_v", "to_out.0")


class InDouble(UNetDenoiser):
    """The trained miniature in float64: in float32 its rounding alone is about 1e-6 of a gradient, the limit of the test."""

    def forward(self, noisy: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        return super().forward(noisy.double(), timesteps, {STATES: condition[STATES].double()})


def settings_for(gamma: float | None, offset: float, folder: Path, batch: int) -> TrainSettings:
    return TrainSettings.model_validate(
        {
            "model_base": "miniature", "work_dir": folder, "resolution": RESOLUTION,
            "batch_size": batch, "max_steps": STEPS, "checkpoint_every": 1, "learning_rate": 1e-3, "weight_decay": 0.1,
            "lr_warmup_steps": 3, "caption_dropout": 0.3, "min_snr_gamma": gamma, "noise_offset": offset, "lora_alpha": 8,
            "max_grad_norm": 0.002,
        }
    )  # fmt: skip


Sample = Callable[[int, int, int], tuple[Tensor, Tensor, Draw]]
"""(step, position, index) → latents, prompt states, and what was drawn."""


class Plain:
    """Its own LoRA, on forward hooks; its own noise, loss, clipping, schedule and AdamW, each written from its formula."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        start: dict[str, tuple[Tensor, Tensor]],
        scheduler: DDPMScheduler,
        settings: Any,
        sample: Sample,
        size: int,
    ) -> None:
        self.unet = unet.requires_grad_(False)
        self.kind = scheduler.config["prediction_type"]
        self.settings = settings
        self.sample = sample
        self.size = size
        # In float64: what is compared is then the rounding of the trainer alone, not that of both.
        unet.double()
        self.pairs = {name: [part.double().requires_grad_() for part in pair] for name, pair in start.items()}
        for name, pair in self.pairs.items():
            unet.get_submodule(name).register_forward_hook(self.adapted(pair))
        self.moments = [[torch.zeros_like(p), torch.zeros_like(p)] for p in self.parameters()]
        config = scheduler.config
        start_root, end_root = (config[f"beta_{end}"] ** 0.5 for end in ("start", "end"))
        betas = torch.linspace(config["beta_start"], config["beta_end"], 1000)
        if config["beta_schedule"] == "scaled_linear":
            betas = torch.linspace(start_root, end_root, 1000) ** 2
        self.alphas = torch.cumprod(1 - betas, 0).double()

    def adapted(self, pair: list[Tensor]) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        scale = self.settings.lora_alpha / self.settings.rank
        return lambda _, inputs, output: output + (inputs[0] @ pair[0].T @ pair[1].T) * scale

    def parameters(self) -> list[Tensor]:
        return [part for name in sorted(self.pairs) for part in self.pairs[name]]

    def rate(self, step: int) -> float:
        s = self.settings
        if step < s.lr_warmup_steps:
            return s.learning_rate * step / s.lr_warmup_steps
        along = (step - s.lr_warmup_steps) / (s.max_steps - s.lr_warmup_steps)
        return s.learning_rate * 0.5 * (1 + math.cos(math.pi * along))

    def step(self, step: int) -> Tensor:
        s = self.settings
        losses = []
        for position, index in enumerate(global_batch(s.seed, step, s.batch_size, [range(self.size)])):
            latents, states, d = self.sample(step, position, index)
            noise = d.noise + s.noise_offset * d.channel_noise
            alpha = self.alphas[d.timestep]
            # In float32, as the trainer's: the miniature turns a last bit of its input into 1e-6 of a gradient.
            noisy = alpha.float().sqrt() * latents + (1 - alpha.float()).sqrt() * noise
            latents, noise = latents.double(), noise.double()
            predicted = self.unet(noisy[None].double(), torch.tensor([d.timestep]), states[None].double()).sample[0]
            target = noise if self.kind == "epsilon" else alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
            ratio = alpha / (1 - alpha)
            weight = 1.0
            if s.min_snr_gamma is not None:
                weight = min(ratio, s.min_snr_gamma) / (ratio if self.kind == "epsilon" else ratio + 1)
            losses.append(weight * ((predicted - target) ** 2).mean())
        loss = sum(losses) / len(losses)
        for parameter, gradient in zip(self.parameters(), torch.autograd.grad(loss, self.parameters()), strict=True):
            parameter.grad = gradient
        return loss.detach()

    def update(self, step: int) -> None:
        s, rate = self.settings, self.rate(step)
        norm = torch.sqrt(sum((p.grad**2).sum() for p in self.parameters()))
        clip = min(1.0, float(s.max_grad_norm / (norm + 1e-6)))
        with torch.no_grad():
            for p, (first, second) in zip(self.parameters(), self.moments, strict=True):
                gradient = p.grad * clip
                first.mul_(0.9).add_(gradient, alpha=0.1)
                second.mul_(0.999).add_(gradient**2, alpha=0.001)
                p.mul_(1 - rate * s.weight_decay)
                corrected = first / (1 - 0.9 ** (step + 1))
                p.sub_(rate * corrected / ((second / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8))


def difference(ours: list[Tensor], plain: list[Tensor]) -> float:
    """Of all tensors together, relative to their norm."""
    distance = torch.sqrt(
        sum(((a.detach().double() - b.detach().double()) ** 2).sum() for a, b in zip(ours, plain, strict=True))
    )
    return float(distance / torch.sqrt(sum((b.detach().double() ** 2).sum() for b in plain)))


def with_moved_lora(unet: UNet2DConditionModel, settings: TrainSettings) -> tuple[list[nn.Parameter], dict[str, Any]]:
    """The parameters of a LoRA whose lora_B is away from zero, so that lora_A has a gradient; and copies, by module."""
    add_lora(unet, settings)
    generator = torch.Generator().manual_seed(5)
    for name, parameter in unet.named_parameters():
        if parameter.requires_grad:
            spread = 0.25 if "lora_A" in name else 0.02
            parameter.data = spread * torch.randn(parameter.shape, generator=generator)
    layers = {n: m for n, m in unet.named_modules() if n.endswith(TARGETS) and hasattr(m, "lora_A")}
    start = {n: (m.lora_A["default"].weight.detach(), m.lora_B["default"].weight.detach()) for n, m in layers.items()}
    return [layers[n].get_submodule(f"lora_{part}").default.weight for n in sorted(layers) for part in "AB"], start


def prepared_small(kind: str, settings: TrainSettings) -> tuple[Trainer, list[nn.Parameter], Plain]:
    """SD's architecture, small, with random weights and random data."""
    unet, scheduler, data = small_unet(), DDPMScheduler(prediction_type=kind), encoded()
    ours, start = with_moved_lora(unet, settings)
    held_out = HeldOut(torch.ones(1, *SHAPE), {STATES: torch.zeros(1, 5, 12)})
    trainer = Trainer(Accelerator(cpu=True), UNetDenoiser(unet), DDPMNoise(scheduler), data, held_out, settings)

    def sample(step: int, position: int, index: int) -> tuple[Tensor, Tensor, Draw]:
        d = draw(
            settings.seed,
            step,
            position,
            shape=SHAPE,
            timesteps=1000,
            flip=settings.random_flip,
            drop_caption=settings.caption_dropout,
        )
        return *plain_sample(data, index, d), d

    return trainer, ours, Plain(small_unet(), start, scheduler, settings, sample, len(data))


def prepared_miniature(kind: str, settings: TrainSettings) -> tuple[Trainer, list[nn.Parameter], Plain]:
    """The miniature: trained on cached latents and states; the plain one encodes image and caption in every step."""
    parts, frozen = load_components(settings), load_components(settings)
    scheduler = DDPMScheduler.from_config(parts.noise_scheduler.config, prediction_type=kind)
    images = [CaptionedImage(path, f"8-bit illustration, {path.stem}") for path in sorted(SAMPLES.glob("*.png"))[:3]]
    store = open_store(str(settings.work_dir / "artifacts"))
    accelerator = Accelerator(cpu=True)
    data, held_out, _ = encode_dataset(
        parts, images, images[:1], also=[], store=store, coordinator=Coordinator(accelerator), settings=settings
    )
    ours, start = with_moved_lora(parts.unet, settings)
    trainer = Trainer(accelerator, InDouble(parts.unet.double()), DDPMNoise(scheduler), data, held_out, settings)

    def sample(step: int, position: int, index: int) -> tuple[Tensor, Tensor, Draw]:
        d = draw(
            settings.seed,
            step,
            position,
            shape=data.shapes[0],
            timesteps=1000,
            flip=settings.random_flip,
            drop_caption=settings.caption_dropout,
        )
        pixels = load_pixels(images[index], square(RESOLUTION))[None]
        with torch.no_grad():
            posterior = frozen.vae.encode(pixels.flip(-1) if d.flip else pixels).latent_dist
            caption = "" if d.drop_caption else images[index].caption
            tokens = frozen.tokenizer(
                caption, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
            ).input_ids
            states = frozen.text_encoder(tokens)[0][0]
        scale = frozen.vae.config["scaling_factor"]
        latents = posterior.mean[0] * scale + posterior.std[0] * scale * d.posterior_noise
        return latents, states, d

    return trainer, ours, Plain(frozen.unet, start, scheduler, settings, sample, len(images))


@pytest.mark.parametrize("prepared", [prepared_small, prepared_miniature])
@pytest.mark.parametrize("offset", [0.0, 0.1])
@pytest.mark.parametrize("gamma", [None, 5.0])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_loss_gradients_and_parameters_are_those_of_the_formulas(
    prepared: Callable[..., tuple[Trainer, list[nn.Parameter], Plain]],
    kind: str,
    gamma: float | None,
    offset: float,
    tmp_path: Path,
) -> None:
    settings = settings_for(gamma, offset, tmp_path, 4 if prepared is prepared_small else 2)
    trainer, ours, plain = prepared(kind, settings)
    gradients: list[Tensor] = []
    step_of = trainer.optimizer.step

    def noting(*arguments: Any, **options: Any) -> Any:
        if not gradients:
            gradients.extend(parameter.grad.clone() for parameter in ours)
        return step_of(*arguments, **options)

    trainer.optimizer.step = noting
    for step in range(STEPS):
        assert trainer.schedule.get_last_lr()[0] == pytest.approx(plain.rate(step), rel=1e-12)
        loss, expected = trainer.take_step(step)[0].mean(), plain.step(step)
        if step == 0:
            norm = torch.sqrt(sum((p.grad**2).sum() for p in plain.parameters()))
            clip = min(1.0, float(settings.max_grad_norm / (norm + 1e-6)))
            assert clip < 1  # clipping clips
            assert abs(float(loss - expected)) <= 1e-6 * float(expected)
            assert difference(gradients, [p.grad * clip for p in plain.parameters()]) < 1e-6
        plain.update(step)
        if step == 1:  # the first with a rate above zero
            assert difference(ours, plain.parameters()) < 1e-6
    assert difference(ours, plain.parameters()) < 1e-5
