"""The adapter: put into the U-Net, taken out as a file, proven to be alive."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn

from service.exits import BadConfiguration, BadData
from service.settings.train import TrainSettings

ADAPTER = "default"
WEIGHTS_NAME = "pytorch_lora_weights.safetensors"
KOHYA_NAME = "kohya_lora_weights.safetensors"


def add_lora(unet: UNet2DConditionModel, settings: TrainSettings) -> None:
    """Freezes `unet` and injects a LoRA in float32; raises BadConfiguration for a target module that it does not have."""
    check_targets(unet, settings.target_modules)
    unet.requires_grad_(False)
    unet.add_adapter(
        LoraConfig(
            r=settings.rank,
            lora_alpha=settings.lora_alpha,
            init_lora_weights="gaussian" if settings.init == "gaussian" else True,
            target_modules=list(settings.target_modules),
        ),
        adapter_name=ADAPTER,
    )
    for parameter in lora_parameters(unet):
        # In bf16 a step of the usual size is lost in rounding for nearly all of lora_A.
        parameter.data = parameter.data.float()


def check_targets(unet: nn.Module, targets: list[str]) -> None:
    adaptable = [name for name, module in unet.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    for target in targets:
        if not any(name == target or name.endswith("." + target) for name in adaptable):
            endings = sorted(
                {
                    name.rsplit(".", 1)[-1] if not name[-1].isdigit() else ".".join(name.split(".")[-2:])
                    for name in adaptable
                }
            )
            raise BadConfiguration(
                f"TRAIN_TARGET_MODULES names {target!r}, which the U-Net does not have; it has {', '.join(endings)}"
            )


def lora_parameters(unet: nn.Module) -> list[nn.Parameter]:
    """The trainable parameters, in the order of the modules."""
    return [parameter for parameter in unet.parameters() if parameter.requires_grad]


def lora_state(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """The adapter's tensors under PEFT's names, on the CPU."""
    state = get_peft_model_state_dict(unet, adapter_name=ADAPTER)
    return {name: state[name].detach().cpu().contiguous() for name in sorted(state)}


def load_lora_state(unet: UNet2DConditionModel, state: Mapping[str, Tensor]) -> None:
    """Puts `state` into the adapter; raises BadData unless every tensor arrived."""
    set_peft_model_state_dict(unet, dict(state), adapter_name=ADAPTER)
    present = lora_state(unet)
    if present.keys() != state.keys() or any(not torch.equal(present[name], state[name].cpu()) for name in present):
        raise BadData("the checkpoint's LoRA does not fit the U-Net: some of its tensors were not taken")


def save_lora(unet: UNet2DConditionModel, folder: Path) -> Path:
    """Writes the adapter as diffusers loads it, and once more as ComfyUI and A1111 do; returns the first file."""
    config = unet.peft_config[ADAPTER].to_dict()
    # PEFT keeps the targets in a set: written as it comes, the same LoRA would differ in its bytes from run to run.
    config["target_modules"] = sorted(config["target_modules"])
    StableDiffusionPipeline.save_lora_weights(
        folder,
        unet_lora_layers=convert_state_dict_to_diffusers(lora_state(unet)),
        unet_lora_adapter_metadata=config,
        weight_name=WEIGHTS_NAME,
    )
    save_file(kohya_state(lora_state(unet), config["lora_alpha"]), folder / KOHYA_NAME, kohya_header(config))
    for name in (WEIGHTS_NAME, KOHYA_NAME):
        order_header(folder / name)
    return folder / WEIGHTS_NAME


def kohya_state(state: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """The adapter under kohya's names: lora_unet_<module with underscores>.{lora_down.weight, lora_up.weight, alpha}.

    The alpha is written out for each module: without it the readers take the rank, and the effect would be another one.
    """
    kohya = {}
    for name, tensor in state.items():
        module, _, part = name.partition(".lora_")
        key = f"lora_unet_{module.replace('.', '_')}"
        kohya[f"{key}.lora_{'down' if part.startswith('A') else 'up'}.weight"] = tensor
        kohya[f"{key}.alpha"] = torch.tensor(float(alpha))
    return kohya


def kohya_header(config: Mapping[str, Any]) -> dict[str, str]:
    """What the programs that read kohya's files show of them (Stability's model metadata standard, and kohya's own keys)."""
    return {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.implementation": "https://github.com/huggingface/diffusers",
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(config["r"]),
        "ss_network_alpha": str(float(config["lora_alpha"])),
    }


def order_header(file: Path) -> None:
    """Sorts the metadata in the header of a safetensors file: the library writes it in a random order, and the same LoRA
    would differ in its bytes from run to run. Format: 8 bytes little-endian length, JSON padded with spaces, the tensors.
    """
    content = file.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write_bytes(len(text).to_bytes(8, "little") + text + content[end:])


def assert_alive(unet: UNet2DConditionModel) -> None:
    """Raises BadData for a LoRA that changes nothing (every lora_B zero) or that is not finite."""
    state = lora_state(unet)
    if not all(bool(torch.isfinite(tensor).all()) for tensor in state.values()):
        raise BadData("the LoRA has weights that are not finite; it is not published")
    if not any(bool(tensor.any()) for name, tensor in state.items() if "lora_B" in name):
        raise BadData("the LoRA has no effect, all of its lora_B are zero; it is not published")
