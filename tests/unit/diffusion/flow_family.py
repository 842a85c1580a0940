"""A second family, as unlike the first as a test needs: two tensors a condition, and flow matching for its objective.

It is one small module with weights at random; so it draws nothing that anybody would look at, and takes no time.
"""
# ruff: noqa: ARG001, ARG002 (it takes what the protocol gives, and needs less)

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders import PeftAdapterMixin
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from service.diffusion.drawing.requests import Drawing, Request
from service.diffusion.family import Condition, Denoiser, LoraFiles, NoiseScheduler, Posterior, Sampler
from service.diffusion.lora import WEIGHTS_NAME, add_adapter, check_targets, load_lora_state, lora_state
from service.settings.models import DiffusionSettings
from service.settings.train import TrainSettings
from service.stopping import StopCheck

WORDS, WIDTH, CHANNELS, PATCH = 6, 12, 4, 8
TIMESTEPS = 1000


class FlowTransformer(PeftAdapterMixin, nn.Module):
    """Each latent pixel attends to the words of a prompt."""

    def __init__(self) -> None:
        super().__init__()
        self.proj_in = nn.Linear(CHANNELS, WIDTH)
        self.time = nn.Linear(1, WIDTH)
        self.length = nn.Linear(1, WIDTH)
        self.to_q, self.to_k, self.to_v = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.to_out = nn.ModuleList([nn.Linear(WIDTH, WIDTH)])
        self.proj_out = nn.Linear(WIDTH, CHANNELS)

    def forward(self, noisy: Tensor, sigmas: Tensor, words: Tensor, length: Tensor) -> Tensor:
        pixels = self.proj_in(noisy.flatten(2).transpose(1, 2))
        pixels = pixels + (self.time(sigmas[:, None]) + self.length(length))[:, None]
        attended = F.scaled_dot_product_attention(self.to_q(pixels), self.to_k(words), self.to_v(words))
        return self.proj_out(F.silu(pixels + self.to_out[0](attended))).transpose(1, 2).reshape(noisy.shape)


class FlowNoise:
    """x_σ = (1 − σ)·latents + σ·noise; what is predicted is the velocity, noise − latents (Lipman et al. 2023)."""

    config = {"num_train_timesteps": TIMESTEPS, "prediction_type": "flow"}  # noqa: RUF012

    def noised(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        sigmas = sigmas_of(timesteps)[:, None, None, None]
        return (1 - sigmas) * latents + sigmas * noise, noise - latents

    def min_snr_weights(self, timesteps: Tensor, gamma: float) -> Tensor:
        ratio = ((1 - sigmas_of(timesteps)) / sigmas_of(timesteps)) ** 2
        return torch.clamp(ratio, max=gamma) / (ratio + 1)


def sigmas_of(timesteps: Tensor) -> Tensor:
    return (timesteps + 1) / TIMESTEPS


class FlowDenoiser(Denoiser):
    def __init__(self, transformer: FlowTransformer) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, noisy: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        return self.transformer(noisy, sigmas_of(timesteps), condition["words"], condition["length"])

    @property
    def adapted(self) -> Mapping[str, nn.Module]:
        return {"transformer": self.transformer}

    def enable_gradient_checkpointing(self) -> None: ...

    def compile(self, *arguments: Any, **options: Any) -> None: ...

    def sampler(self, noise_scheduler: NoiseScheduler, settings: TrainSettings) -> Sampler:
        def draw(condition: Condition, empty: Condition, stop_check: StopCheck) -> Image.Image:
            generator = torch.Generator().manual_seed(settings.seed)
            side = settings.resolution // PATCH
            return euler(self, condition, side, settings.sample_steps, generator, stop_check)

        return draw

    def export(self, folder: Path, name: str, facts: Mapping[str, str]) -> LoraFiles:
        save_file(lora_state(self), folder / WEIGHTS_NAME, metadata=dict(facts))
        return LoraFiles(
            pipeline="FlowPipeline",
            weights=WEIGHTS_NAME,
            needs="diffusers",
            elsewhere=None,
            missing="they know no such family",
            inside="the transformer",
            tag="flow",
        )


@torch.no_grad()
def euler(
    denoiser: Denoiser, condition: Condition, side: int, steps: int, generator: torch.Generator, stop_check: StopCheck
) -> Image.Image:
    """From noise to a picture of PATCH·side pixels, by steps of equal size."""
    latents = torch.randn(1, CHANNELS, side, side, generator=generator)
    for step in range(steps):
        timestep = torch.tensor([TIMESTEPS - 1 - step * TIMESTEPS // steps])
        latents = latents - denoiser(latents, timestep, condition) / steps
        stop_check()
    pixels = F.interpolate(latents[:, :3], scale_factor=PATCH).clamp(-1, 1)[0].permute(1, 2, 0)
    return Image.fromarray(((pixels + 1) * 127.5).byte().numpy())


class Words(nn.Module):
    """A table of random vectors, by the first letter of a word."""

    config: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(128, WIDTH)


class Pooling(nn.Module):
    """The mean colour of each patch, and its brightness."""

    config: dict[str, Any] = {}  # noqa: RUF012


class FlowParts:
    """`asked` notes what is encoded."""

    condition_names = ("words", "length")
    noise_scheduler = FlowNoise()

    def __init__(self, asked: list[str]) -> None:
        torch.manual_seed(0)
        self.transformer, self.words, self.pooling = FlowTransformer(), Words(), Pooling()
        self.image_models, self.prompt_models = (self.pooling,), (self.words,)
        self.asked = asked

    def encode_images(self, pixels: Tensor, names: Sequence[str]) -> Posterior:
        self.asked.extend(names)
        colours = F.avg_pool2d(pixels, PATCH)
        mean = torch.cat([colours, colours.mean(dim=1, keepdim=True)], dim=1)
        return Posterior(mean, torch.full_like(mean, 0.01))

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        self.asked.extend(prompts)
        tokens = self.tokenize_prompts(prompts)
        return {"words": self.words.table(tokens["letters"]), "length": tokens["length"]}

    def tokenize_prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        letters = [[ord(word[0]) % 128 for word in prompt.split()][:WORDS] for prompt in prompts]
        padded = torch.tensor([found + [0] * (WORDS - len(found)) for found in letters])
        return {"letters": padded, "length": torch.tensor([[len(found) / WORDS] for found in letters])}

    def trainable(self, settings: TrainSettings, dtype: torch.dtype) -> FlowDenoiser:
        check_targets(self.transformer, settings.target_modules, "the transformer")
        add_adapter(self.transformer.to(dtype), settings.target_modules, settings, dora=settings.dora)
        return FlowDenoiser(self.transformer)


class FlowPipeline:
    sampler = "Euler"
    device = torch.device("cpu")

    def __init__(self, parts: FlowParts, settings: TrainSettings) -> None:
        self.parts = parts
        self._settings = settings
        self.denoiser = FlowDenoiser(parts.transformer)

    def autocast(self) -> AbstractContextManager[object]:
        return nullcontext()

    def draw(self, requests: Sequence[Request], drawing: Drawing, stop_check: StopCheck) -> list[Image.Image]:
        return list(self._pictures(requests, drawing, stop_check))

    def reconstruct(self, images: Sequence[Image.Image]) -> list[Image.Image]:
        return list(images)  # its latents are the pixels themselves

    def put_on_lora(self, folder: Path, scale: float = 1.0) -> None:
        self.denoiser = self.parts.trainable(self._settings, torch.float32)
        load_lora_state(load_file(folder / WEIGHTS_NAME), self.denoiser)

    def _pictures(self, requests: Sequence[Request], drawing: Drawing, stop_check: StopCheck) -> Iterator[Image.Image]:
        for request in requests:
            condition = self.parts.encode_prompts([request.prompt])
            generator = torch.Generator().manual_seed(request.seed)
            yield euler(
                self.denoiser, condition, (drawing.resolution or 64) // PATCH, drawing.steps, generator, stop_check
            )


class FlowFamily:
    name = "flow"

    def __init__(self, settings: TrainSettings) -> None:
        self.asked: list[str] = []
        self._settings = settings

    def load(self, settings: DiffusionSettings) -> FlowParts:
        return FlowParts(self.asked)

    def open_pipeline(self, settings: DiffusionSettings) -> FlowPipeline:
        return FlowPipeline(FlowParts(self.asked), self._settings)
