"""Every kind of LoRA that can be trained, and how programs that merge apply its file."""

from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from service.diffusion.lora import lora_parameters
from service.diffusion.sd15.components import load_components
from service.diffusion.sd15.denoiser import UNetDenoiser
from service.settings.train import TrainSettings

VARIANTS: dict[str, dict[str, object]] = {
    "attention": {},
    "feed-forward": {"target_modules": "attention,feed_forward"},
    "convolutions": {"target_modules": "attention,convolutions"},
    "rank-stabilised": {"rank": 8, "rslora": True, "lora_alpha": 4},
    "dora": {"dora": True},
    "text-encoder": {"text_encoder": True, "lora_alpha": 8},
    "everything": {
        "target_modules": "attention,feed_forward,convolutions", "text_encoder": True, "rslora": True, "dora": True,
    },
}  # fmt: skip


def trained(options: dict[str, object]) -> UNetDenoiser:
    settings = TrainSettings.model_validate({"model_base": "miniature", **options})
    parts = load_components(settings)
    denoiser = parts.trainable(settings, torch.float32).eval()
    generator = torch.Generator().manual_seed(3)
    for parameter in lora_parameters(denoiser):
        # A magnitude (DoRA) is the length of a weight vector: it moves, and stays about as long.
        drift = torch.randn(parameter.shape, generator=generator)
        parameter.data = parameter.data * (1 + 0.05 * drift) if parameter.ndim != 2 else 0.1 * drift
        if parameter.ndim == 4 and parameter.shape[0] > 1:
            parameter.data = 0.1 * drift
    return denoiser


def merge_as_comfyui_does(pipeline: StableDiffusionPipeline, file: Path) -> None:
    """Up · down · alpha / rank onto each weight; with a dora_scale, each output's weights scaled to that length."""
    tensors = load_file(file)
    models = {"lora_unet_": pipeline.unet, "lora_te_text_model_": pipeline.text_encoder}
    modules = {p + n.replace(".", "_"): m for p, model in models.items() for n, m in model.named_modules()}
    for key in {name.split(".")[0] for name in tensors}:
        down, up = tensors[f"{key}.lora_down.weight"], tensors[f"{key}.lora_up.weight"]
        weight = modules[key].weight
        change = (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
        weight.data += change * tensors[f"{key}.alpha"] / len(down)
        if f"{key}.dora_scale" in tensors:
            length = weight.data.flatten(1).norm(dim=1).reshape(-1, *[1] * (weight.ndim - 1))
            weight.data *= tensors[f"{key}.dora_scale"] / length
