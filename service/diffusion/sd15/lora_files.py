"""The adapter as files: as diffusers loads it, and as ComfyUI and A1111 do."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from safetensors.torch import save_file
from torch import Tensor, nn

from service.diffusion.family import Denoiser
from service.diffusion.lora import ADAPTER, WEIGHTS_NAME, lora_state, part_of

PIPELINE = StableDiffusionPipeline.__name__
KOHYA_NAME = "kohya_lora_weights.safetensors"
KOHYA_PARTS = {
    "lora_A.weight": "lora_down.weight",
    "lora_B.weight": "lora_up.weight",
    "lora_magnitude_vector": "dora_scale",
}
# Kohya's names are those of a CLIPTextModel that still had an inner text_model.
KOHYA_PREFIXES = {"unet.": "lora_unet_", "text_encoder.": "lora_te_text_model_"}


def save_lora(folder: Path, denoiser: Denoiser, facts: Mapping[str, str] | None = None) -> Path:
    """Writes both files of the adapter in `unet` and, where it has one, `text_encoder`; returns the one for diffusers.

    `facts` go into the headers, where programs show them.
    """
    state = lora_state(denoiser)
    configs = {part: _plain_config(model) for part, model in denoiser.adapted.items()}
    layers = {part: convert_state_dict_to_diffusers(part_of(state, part)) for part in denoiser.adapted}
    StableDiffusionPipeline.save_lora_weights(
        folder,
        unet_lora_layers=layers["unet"],
        text_encoder_lora_layers=layers.get("text_encoder"),
        unet_lora_adapter_metadata=configs["unet"],
        text_encoder_lora_adapter_metadata=configs.get("text_encoder"),
        weight_name=WEIGHTS_NAME,
    )
    save_file(_kohya_state(state, configs["unet"]), folder / KOHYA_NAME)
    for name in (WEIGHTS_NAME, KOHYA_NAME):
        _complete_header(folder / name, {**_model_facts(configs["unet"]), **(facts or {})})
    return folder / WEIGHTS_NAME


def _plain_config(model: nn.Module) -> dict[str, Any]:
    """The adapter's configuration as PEFT writes it, always in the same order."""
    configs: Any = model.peft_config
    config: dict[str, Any] = configs[ADAPTER].to_dict()
    # PEFT keeps the targets in a set: written as it comes, the same LoRA would differ in its bytes from run to run.
    config["target_modules"] = sorted(config["target_modules"])
    return config


def _kohya_state(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The adapter under kohya's names, lora_unet_<module with underscores>.{lora_down.weight, lora_up.weight, alpha}.

    The alpha is written out for each module: without it the readers take the rank, and the effect would be another one.
    They know alpha / rank alone; a rank-stabilised LoRA, alpha / √rank, is written with the alpha that gives the same.
    """
    alpha = float(config["lora_alpha"]) * (math.sqrt(config["r"]) if config["use_rslora"] else 1.0)
    kohya: dict[str, Tensor] = {}
    for name, tensor in state.items():
        part = next(p for p in KOHYA_PARTS if name.endswith(p))
        prefix = next(p for p in KOHYA_PREFIXES if name.startswith(p))
        module = name.removeprefix(prefix).removesuffix("." + part).removeprefix("text_model.")
        key = KOHYA_PREFIXES[prefix] + module.replace(".", "_")
        if part == "lora_magnitude_vector":
            # One number an output, in as many dimensions as the weight has.
            dimensions = state[name.removesuffix(part) + "lora_A.weight"].ndim
            tensor = tensor.reshape(-1, *[1] * (dimensions - 1))
        kohya[f"{key}.{KOHYA_PARTS[part]}"] = tensor
        kohya[f"{key}.alpha"] = torch.tensor(alpha)
    return kohya


def _model_facts(config: Mapping[str, Any]) -> dict[str, str]:
    """What programs show of a file (Stability's model metadata standard, and kohya's own keys)."""
    return {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.implementation": "https://github.com/huggingface/diffusers",
        "ss_base_model_version": "sd_v1",
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(config["r"]),
        "ss_network_alpha": str(float(config["lora_alpha"])),
    }


def _complete_header(file: Path, facts: Mapping[str, str]) -> None:
    """Adds `facts` to the metadata in the header of a safetensors file, and sorts it.

    The library writes the metadata in a random order: the same LoRA would differ in its bytes from run to run.
    Format: 8 bytes little-endian length, JSON padded with spaces, the tensors.
    """
    content = file.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted({**header.get("__metadata__", {}), **facts}.items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write_bytes(len(text).to_bytes(8, "little") + text + content[end:])
