"""A Stable Diffusion small enough for tests, with weights at random."""

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors import safe_open

from service.diffusion.lora import lora_parameters
from service.diffusion.sd15.lora import add_lora
from service.diffusion.sd15.lora_files import ELSEWHERE
from service.settings.train import TrainSettings


def small_unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=12,
        attention_head_dim=2,
        norm_num_groups=4,
    ).eval()


def with_lora(**options: object) -> UNet2DConditionModel:
    """The small U-Net with the start of a LoRA."""
    unet = small_unet()
    add_lora(unet, TrainSettings(**options))
    return unet


def trained(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """The same, as if it had learned something."""
    generator = torch.Generator().manual_seed(3)
    for parameter in lora_parameters(unet):
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return unet


def elsewhere(name: str) -> str:
    """The path of the file for other programs, of a run of this name."""
    return f"{ELSEWHERE}/{name}.safetensors"


def header_of(file: Path) -> dict[str, str]:
    """What the header of a safetensors file says besides the tensors."""
    with safe_open(file, "pt") as content:
        return dict(content.metadata())
