"""What a family of diffusion models is to the rest of the service: all that differs between Stable Diffusion 1.x and others.

A family is a folder beside this file, and one line in `families.py`; nothing else changes for it. It promises five things,
by how long each of them lives:

- `Family` knows how to begin: it loads the parts for a training, or opens a pipeline for drawing.
- `Parts` are frozen models in float32 on the CPU. They encode images and prompts once, give the denoiser that learns, and
  leave the memory.
- `Denoiser` is what is trained and stays: it predicts, it shows what it has learned in a picture, and it exports its LoRA.
- `NoiseScheduler` makes the noisy input and what is to be predicted of it, and says how much a timestep counts.
- `Pipeline` is the whole model for drawing, with the exported LoRA put on.

Everything else (order and randomness, caches, loop, checkpoints, held-out loss, gate, store) is the same for all of them.

A *condition* is what a denoiser takes for a prompt: tensors by name. Which names there are, and their shapes, is the
family's own business (states; pooled states, sizes and crop coordinates; lengths), but all prompts have the same ones, so
that those of a batch can be stacked. What is cached is float32; what does not need to be encoded may be of any type.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from service.diffusion.drawing.requests import Drawing, Request
from service.settings.models import DiffusionSettings
from service.settings.train import TrainSettings
from service.stopping import StopCheck

Condition = Mapping[str, Tensor]
"""Tensors by name: of one prompt, or, with a first dimension more, of a batch of prompts."""


class Posterior(NamedTuple):
    """What the autoencoder says of a batch of images: (B, C, H, W) float32 on the CPU, in the denoiser's scale."""

    mean: Tensor
    deviation: Tensor


@dataclass(frozen=True)
class LoraFiles:
    """What an export has written, for whoever tells how it is used.

    pipeline: the class of diffusers that loads the file `weights`, and needs: which versions do; elsewhere: the path of the
    file for ComfyUI, A1111, InvokeAI and kohya's scripts, or None, and missing: why there is none; inside: what has the
    adapter, in words; tag: the family's on model hubs.
    """

    pipeline: str
    weights: str
    needs: str
    elsewhere: str | None
    missing: str
    inside: str
    tag: str


class NoiseScheduler(Protocol):
    """The way from latents to noise, and what is learned of it."""

    @property
    def config(self) -> Mapping[str, Any]:
        """At least `num_train_timesteps` (timesteps are whole numbers from 0 to below it) and `prediction_type`."""

    def noised(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """The noisy input and the target of its prediction, both (B, C, H, W).

        latents: (B, C, H, W) in the denoiser's scale; noise: the same shape, standard normal; timesteps: (B,) int64. The
        input is float32, also under autocast. Raises BadConfiguration for a prediction that cannot be trained.
        """

    def min_snr_weights(self, timesteps: Tensor, gamma: float) -> Tensor:
        """How much the loss of a sample counts when easy timesteps are weighed down to the signal-to-noise ratio gamma.

        timesteps: (B,) int64; returns (B,) float32.
        """


class Sampler(Protocol):
    """Draws with a denoiser that is being trained."""

    def __call__(self, condition: Condition, empty: Condition, stop_check: StopCheck) -> Image.Image:
        """One picture. condition: of its prompt, empty: of the empty prompt, each with a batch of 1, on any device.

        `stop_check` is called after each step of denoising, and may raise to end it.
        """


class Denoiser(nn.Module, ABC):
    """What is trained, in one module, so that one wrapper shares the gradients of all that learns."""

    @abstractmethod
    def forward(self, noisy: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """The prediction, (B, C, H, W). noisy: (B, C, H, W); timesteps: (B,) int64; condition: of B prompts."""

    @property
    @abstractmethod
    def adapted(self) -> Mapping[str, nn.Module]:
        """The models that have an adapter, by name: the names under which a checkpoint has their tensors."""

    @abstractmethod
    def enable_gradient_checkpointing(self) -> None:
        """Computes activations twice from now on rather than keep them."""

    @abstractmethod
    def compile(self, *arguments: Any, **options: Any) -> None:
        """Compiles, in place, what most of the time goes into; see torch.compile."""

    @abstractmethod
    def sampler(self, noise_scheduler: NoiseScheduler, settings: TrainSettings) -> Sampler:
        """Draws with the adapter as it is at each call: TRAIN_SAMPLE_STEPS, _GUIDANCE, TRAIN_RESOLUTION and TRAIN_SEED."""

    @abstractmethod
    def export(self, folder: Path, name: str, facts: Mapping[str, str]) -> LoraFiles:
        """Writes the adapter into the folder in all forms that programs apply as it was trained.

        name: the run's, for the file that people put among their LoRAs; facts: for the files' headers. The form for diffusers
        is called `lora.WEIGHTS_NAME`, whatever the family. The same adapter with the same facts gives the same bytes,
        whenever it is written.
        """


class Parts(Protocol):
    """The loaded models of a family: frozen, in evaluation mode, float32, on the CPU until the caller moves them."""

    @property
    def noise_scheduler(self) -> NoiseScheduler:
        """The training's, which needs no memory and may outlive the other parts."""

    @property
    def image_models(self) -> Sequence[nn.Module]:
        """The models that decide what `encode_images` says; each has a `config`."""

    @property
    def prompt_models(self) -> Sequence[nn.Module]:
        """The models that decide what `encode_prompts` says; each has a `config`."""

    @property
    def condition_names(self) -> Sequence[str]:
        """The names of the tensors of `encode_prompts`, in an order that never changes."""

    def encode_images(self, pixels: Tensor, names: Sequence[str]) -> Posterior:
        """pixels: (B, 3, H, W) float32 in [-1, 1]; names: of the B images. Raises BadData, naming the image, when its
        latents are not finite."""

    def encode_prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """The condition of B prompts, float32 on the CPU."""

    def tokenize_prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """The condition of B prompts for a denoiser that learns to encode them too (TRAIN_TEXT_ENCODER), on the CPU."""

    def trainable(self, settings: TrainSettings, dtype: torch.dtype) -> Denoiser:
        """The denoiser, frozen and in `dtype`, with a LoRA at its start in float32, drawn from torch's generator.

        Raises BadConfiguration for a target module that it does not have.
        """


class Pipeline(Protocol):
    """The whole model for drawing, without a LoRA at first, on the best device there is."""

    @property
    def device(self) -> torch.device:
        """Where it draws."""

    @property
    def parts(self) -> Parts:
        """The same models, in the pipeline's precision and on its device."""

    @property
    def denoiser(self) -> Denoiser:
        """The one that draws, with the LoRA that is on."""

    @property
    def sampler(self) -> str:
        """The scheduler that draws, by the name that A1111 has for it."""

    def autocast(self) -> AbstractContextManager[object]:
        """In which the denoiser is to be called: it may be in half precision."""

    def draw(self, requests: Sequence[Request], drawing: Drawing, stop_check: StopCheck) -> list[Image.Image]:
        """One batch. Each picture has a random generator of its own, so that it does not depend on its neighbours.

        `stop_check` is called after each step of denoising, and may raise to end it.
        """

    def reconstruct(self, images: Sequence[Image.Image]) -> list[Image.Image]:
        """What is left of images, sides a multiple of 8 pixels, when the autoencoder has encoded and decoded them."""

    def put_on_lora(self, folder: Path, scale: float = 1.0) -> None:
        """Loads the LoRA of a published folder at this strength. Raises BadData when it does not fit the base model."""


class Family(Protocol):
    """One family of models: how its members are loaded."""

    @property
    def name(self) -> str:
        """That of its folder, such as "sd15"."""

    def load(self, settings: DiffusionSettings) -> Parts:
        """Loads MODEL_BASE, with the autoencoder of MODEL_VAE. Raises MissingInput, BadData or BadConfiguration."""

    def open_pipeline(self, settings: DiffusionSettings) -> Pipeline:
        """The same models for drawing, on the best device there is, in half precision on a GPU. Raises as `load` does."""
