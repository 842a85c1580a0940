"""The adapter, in whatever model: put in, taken out as tensors, proven to be alive."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from service.diffusion.family import Condition, Denoiser
from service.exits import BadConfiguration, BadData
from service.settings.train import TrainSettings

ADAPTER = "default"
WEIGHTS_NAME = "pytorch_lora_weights.safetensors"
"""The name that diffusers looks for: so an export of every family calls the file for it."""


def add_adapter(model: Any, targets: Sequence[str], settings: TrainSettings, *, dora: bool) -> None:
    """Freezes the model and injects a LoRA in float32 into its modules whose names end with one of `targets`.

    model: of diffusers or transformers, or any module with their `add_adapter`; settings: rank, alpha, initialization and
    rank stabilisation (Hu et al. 2021; Kalajdzievski 2023); dora: whether magnitudes are learned apart (Liu et al. 2024).
    """
    model.requires_grad_(False)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.lora_alpha,
        init_lora_weights="gaussian" if settings.init == "gaussian" else True,
        target_modules=list(targets),
        use_rslora=settings.rslora,
        use_dora=dora,
    )
    model.add_adapter(config, adapter_name=ADAPTER)
    for parameter in lora_parameters(model):
        # In bf16 a step of the usual size is lost in rounding for nearly all of lora_A.
        parameter.data = parameter.data.float()


def check_targets(model: nn.Module, targets: Sequence[str], called: str) -> None:
    """Raises BadConfiguration, with the names that there are, when a target fits no module of the model."""
    adaptable = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    for target in targets:
        if not any(name == target or name.endswith("." + target) for name in adaptable):
            endings = sorted(
                {
                    name.rsplit(".", 1)[-1] if not name[-1].isdigit() else ".".join(name.split(".")[-2:])
                    for name in adaptable
                }
            )
            raise BadConfiguration(
                f"TRAIN_TARGET_MODULES names {target!r}, which {called} does not have; it has {', '.join(endings)}"
            )


def keep_autocast_in_charge(model: nn.Module) -> None:
    """Stops PEFT from turning every activation into float32 and back: autocast chooses the precision of the adapter too."""
    for layer in _layers(model):
        layer.cast_input_dtype_enabled = False


def lora_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The trainable parameters, in the order of the modules."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def lora_state(denoiser: Denoiser) -> dict[str, Tensor]:
    """The adapter's tensors under PEFT's names, after the name of their model and a dot, sorted, on the CPU."""
    state = {
        f"{part}.{name}": tensor.detach().cpu().contiguous()
        for part, model in denoiser.adapted.items()
        for name, tensor in get_peft_model_state_dict(model, adapter_name=ADAPTER, save_embedding_layers=False).items()
    }
    return {name: state[name] for name in sorted(state)}


def load_lora_state(state: Mapping[str, Tensor], denoiser: Denoiser) -> None:
    """Puts `state`, of `lora_state`, into the adapter; raises BadData unless every tensor arrived."""
    for part, model in denoiser.adapted.items():
        set_peft_model_state_dict(model, part_of(state, part), adapter_name=ADAPTER)
    present = lora_state(denoiser)
    if present.keys() != state.keys() or any(not torch.equal(present[name], state[name].cpu()) for name in present):
        raise BadData("the checkpoint's LoRA does not fit the base model: some of its tensors were not taken")


def part_of(state: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """The tensors of one model, under PEFT's names."""
    return {name.removeprefix(part + "."): tensor for name, tensor in state.items() if name.startswith(part + ".")}


@contextmanager
def without_adapter(model: nn.Module) -> Iterator[None]:
    """The base model, for as long as the block lasts."""
    layers = _layers(model)
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def check_lora(file: Path) -> None:
    """Raises BadData for a file that is no LoRA, one that diffusers would apply otherwise than it was trained, or one with
    weights that are not finite: all pictures would be black."""
    try:
        weights = load_file(file)
    except (OSError, SafetensorError) as error:
        raise BadData(f"the LoRA {file.name} cannot be read: {error}") from error
    if not any("lora" in name.lower() for name in weights):
        raise BadData(f"{file.name} is no LoRA: none of its {len(weights)} tensors bears the name of one")
    if any(name.endswith(".dora_scale") for name in weights):
        # diffusers leaves them out with a warning, and what is applied then is another LoRA.
        raise BadData(
            f"the LoRA {file.name} is a DoRA in kohya's form, whose lengths (dora_scale) diffusers does not apply; "
            "take its file for diffusers"
        )
    broken = sorted(name for name, weight in weights.items() if not bool(torch.isfinite(weight).all()))
    if broken:
        raise BadData(f"the LoRA {file.name} has weights that are not finite, the first in {broken[0]}")


def assert_alive(state: Mapping[str, Tensor]) -> None:
    """Raises BadData for a LoRA that changes nothing (every lora_B zero) or that is not finite."""
    if not all(bool(torch.isfinite(tensor).all()) for tensor in state.values()):
        raise BadData("the LoRA has weights that are not finite; it is not published")
    if not any(bool(tensor.any()) for name, tensor in state.items() if "lora_B" in name):
        raise BadData("the LoRA has no effect, all of its lora_B are zero; it is not published")


@torch.no_grad()
def assert_effect(denoiser: Denoiser, noisy: Tensor, timesteps: Tensor, condition: Condition) -> None:
    """Raises BadData when the denoiser predicts the same for this input with the adapter as without.

    noisy: (B, C, H, W); timesteps: (B,) int64; condition: of B prompts.
    """
    styled = denoiser(noisy, timesteps, condition)
    with without_adapter(denoiser):
        base = denoiser(noisy, timesteps, condition)
    if torch.equal(styled, base):
        raise BadData("the LoRA has no effect: the model predicts the same with it as without; it is not published")


def _layers(model: nn.Module) -> list[LoraLayer]:
    return [module for module in model.modules() if isinstance(module, LoraLayer)]
