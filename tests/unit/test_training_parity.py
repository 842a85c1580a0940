"""The trainer against an implementation that is deliberately plain: without PEFT, Accelerate, scheduler and optimizer."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from service.diffusion.denoiser import Denoiser
from service.diffusion.held_out import HeldOut
from service.diffusion.lora import add_lora, lora_parameters
from service.settings.train import TrainSettings
from service.training.randomness import draw, global_batch
from service.training.trainer import Trainer
from tests.unit.test_diffusion import small_unet
from tests.unit.test_training import SHAPE, encoded, plain_sample

STEPS = 20
BATCH = 4
TARGETS = ("to_k", "to_q", "to_v", "to_out.0")


def settings_for(gamma: float | None, offset: float) -> TrainSettings:
    return TrainSettings.model_validate(
        {
            "batch_size": BATCH, "max_steps": STEPS, "checkpoint_every": 1, "learning_rate": 1e-3, "weight_decay": 0.1,
            "lr_warmup_steps": 3, "caption_dropout": 0.3, "min_snr_gamma": gamma, "noise_offset": offset, "lora_alpha": 8,
            "max_grad_norm": 0.002,
        }
    )  # fmt: skip


class Plain:
    """Its own LoRA, on forward hooks; its own noise, loss, clipping, schedule and AdamW, each written from its formula."""

    def __init__(
        self, unet: UNet2DConditionModel, start: dict[str, tuple[Tensor, Tensor]], kind: str, settings: Any
    ) -> None:
        self.unet = unet.requires_grad_(False)
        self.kind = kind
        self.settings = settings
        # In float64: what is compared is then the rounding of the trainer alone, not that of both.
        unet.double()
        self.pairs = {name: [part.double().requires_grad_() for part in pair] for name, pair in start.items()}
        for name, pair in self.pairs.items():
            unet.get_submodule(name).register_forward_hook(self.adapted(pair))
        self.moments = [[torch.zeros_like(p), torch.zeros_like(p)] for p in self.parameters()]
        betas = torch.linspace(0.0001, 0.02, 1000)
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
        s, data = self.settings, encoded()
        losses = []
        for position, index in enumerate(global_batch(s.seed, step, BATCH, [range(len(data))])):
            d = draw(s.seed, step, position, SHAPE, 1000, s.random_flip, s.caption_dropout)
            latents, states = (tensor.double() for tensor in plain_sample(data, index, d))
            noise = (d.noise + s.noise_offset * d.channel_noise).double()
            alpha = self.alphas[d.timestep]
            noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
            predicted = self.unet(noisy[None], torch.tensor([d.timestep]), states[None]).sample[0]
            target = noise if self.kind == "epsilon" else alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
            ratio = alpha / (1 - alpha)
            weight = 1.0
            if s.min_snr_gamma is not None:
                weight = min(ratio, s.min_snr_gamma) / (ratio if self.kind == "epsilon" else ratio + 1)
            losses.append(weight * ((predicted - target) ** 2).mean())
        loss = sum(losses) / BATCH
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


def prepared(kind: str, settings: TrainSettings) -> tuple[Trainer, list[nn.Parameter], Plain]:
    torch.manual_seed(0)
    unet = small_unet()
    add_lora(unet, settings)
    generator = torch.Generator().manual_seed(5)
    for parameter in lora_parameters(unet):  # lora_B away from zero, so that the gradient of lora_A is something
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    layers = {
        name: module for name, module in unet.named_modules() if name.endswith(TARGETS) and hasattr(module, "lora_A")
    }
    start = {n: (m.lora_A["default"].weight.detach(), m.lora_B["default"].weight.detach()) for n, m in layers.items()}
    plain = Plain(small_unet(), start, kind, settings)
    scheduler = DDPMScheduler(prediction_type=kind)
    held_out = HeldOut(torch.zeros(1, *SHAPE), torch.zeros(1, 5, 12))
    trainer = Trainer(Accelerator(cpu=True), Denoiser(unet), scheduler, encoded(), held_out, settings)
    ours = [layers[n].get_submodule(f"lora_{part}").default.weight for n in sorted(layers) for part in "AB"]
    return trainer, ours, plain


@pytest.mark.parametrize("offset", [0.0, 0.1])
@pytest.mark.parametrize("gamma", [None, 5.0])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_loss_gradients_and_parameters_are_those_of_the_formulas(kind: str, gamma: float | None, offset: float) -> None:
    settings = settings_for(gamma, offset)
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
