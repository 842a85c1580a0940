"""What is trained: the U-Net, and the text encoder before it where that learns too."""

from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel


class Denoiser(nn.Module):
    """One module, so that one wrapper shares the gradients of both. Called as the U-Net is.

    Without a text encoder the condition is the prompts' states, (B, L, D); with one, their tokens, (B, L) int64.
    """

    def __init__(self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel | None = None) -> None:
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder

    def forward(self, noisy: Tensor, timesteps: Tensor, condition: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        """noisy: (B, C, H, W); timesteps: (B,). Returns the prediction, (B, C, H, W), in a tuple."""
        states = condition if self.text_encoder is None else self.text_encoder(condition)[0]
        return self.unet(noisy, timesteps, states, return_dict=return_dict)
