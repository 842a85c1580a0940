"""What is trained: the U-Net, and the text encoder before it where that learns too."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel

from service.diffusion.family import Condition, Denoiser, LoraFiles, NoiseScheduler, Sampler
from service.diffusion.sd15.lora_files import save_lora
from service.diffusion.sd15.prompts import STATES, TOKENS
from service.diffusion.sd15.sampler import UNetSampler
from service.settings.train import TrainSettings


class UNetDenoiser(Denoiser):
    """A U-Net that attends to prompts.

    Without a text encoder its condition is the prompts' states, (B, L, D); with one, their tokens, (B, L) int64.
    """

    def __init__(self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel | None = None) -> None:
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder

    def forward(self, noisy: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """noisy: (B, 4, H, W); timesteps: (B,) int64. Returns the noise or the velocity, (B, 4, H, W)."""
        predicted: Tensor = self.unet(noisy, timesteps, self.states(condition), return_dict=False)[0]
        return predicted

    def states(self, condition: Condition) -> Tensor:
        """(B, L, D): what the U-Net attends to."""
        if self.text_encoder is None:
            return condition[STATES]
        states: Tensor = self.text_encoder(condition[TOKENS])[0]
        return states

    @property
    def adapted(self) -> Mapping[str, nn.Module]:
        """`unet`, and `text_encoder` where it learns too."""
        return (
            {"unet": self.unet} if self.text_encoder is None else {"unet": self.unet, "text_encoder": self.text_encoder}
        )

    def enable_gradient_checkpointing(self) -> None:
        """Of the U-Net, which holds nearly all activations."""
        self.unet.enable_gradient_checkpointing()

    def compile(self, *arguments: Any, **options: Any) -> None:
        """The U-Net alone."""
        self.unet.compile(*arguments, **options)

    def sampler(self, noise_scheduler: NoiseScheduler, settings: TrainSettings) -> Sampler:
        """Draws by DDIM. The autoencoder is loaded for it, and goes with it."""
        return UNetSampler(self.unet, self.states, noise_scheduler, settings)

    def export(self, folder: Path, name: str, facts: Mapping[str, str]) -> LoraFiles:
        """The files of `save_lora`."""
        return save_lora(folder, self, name, facts)
