"""Every kind of LoRA that can be trained, and how programs that merge apply its files."""

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
    "loud": {"lora_alpha": 12},
    "dora": {"dora": True},
    "text-encoder": {"text_encoder": True, "lora_alpha": 8},
    "all but dora": {
        "target_modules": "attention,feed_forward,convolutions", "text_encoder": True, "rslora": True, "rank": 8,
        "lora_alpha": 3,
    },
    "everything": {
        "target_modules": "attention,feed_forward,convolutions", "text_encoder": True, "rslora": True, "dora": True,
    },
}  # fmt: skip
FOR_OTHERS = [variant for variant, options in VARIANTS.items() if "dora" not in options]
"""Those that other programs than diffusers apply as they were trained."""


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
    """Up · down · alpha / rank onto each weight; kohya's scripts, A1111 and InvokeAI do the same."""
    tensors = load_file(file)
    models = {"lora_unet_": pipeline.unet, "lora_te_text_model_": pipeline.text_encoder}
    modules = {p + n.replace(".", "_"): m for p, model in models.items() for n, m in model.named_modules()}
    for key in {name.split(".")[0] for name in tensors}:
        down, up = tensors[f"{key}.lora_down.weight"], tensors[f"{key}.lora_up.weight"]
        modules[key].weight.data += change_of(down, up) * tensors[f"{key}.alpha"] / len(down)


def merge_as_diffusers_without_header_does(pipeline: StableDiffusionPipeline, file: Path) -> None:
    """What diffusers 0.32 makes of a file, with the names of transformers 4: alpha is the rank, whatever the header says.

    With a magnitude (DoRA), each output's weights are scaled to that length.
    """
    tensors = load_file(file)
    endings = {".lora.down": ".lora.up", ".lora_linear_layer.down": ".lora_linear_layer.up", ".lora_A": ".lora_B"}
    for name, down in tensors.items():
        if (ending := next((end for end in endings if name.endswith(f"{end}.weight")), None)) is None:
            continue
        key = name.removesuffix(f"{ending}.weight")
        model, _, path = key.partition(".")
        # transformers 5 has no inner text_model any more; the 4th needs it in the names.
        path = path if model == "unet" else path.removeprefix("text_model.")
        assert model == "unet" or key.startswith("text_encoder.text_model.")
        weight = getattr(pipeline, model).get_submodule(path).weight
        up = tensors[f"{key}{endings[ending]}.weight"]
        weight.data += change_of(down, up)
        if (length := tensors.get(f"{key}.lora_magnitude_vector")) is not None:
            now = weight.data.flatten(1).norm(dim=1)
            weight.data *= (length.flatten() / now).reshape(-1, *[1] * (weight.ndim - 1))


def change_of(down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Up · down in the shape of the weight: (out, in), or (out, in, height, width) of a convolution."""
    return (up.flatten(1) @ down.flatten(1)).reshape(len(up), *down.shape[1:])
