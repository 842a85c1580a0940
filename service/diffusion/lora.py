"""The adapter: put into the models, taken out as tensors, proven to be alive."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn
from transformers import CLIPTextModel

from service.exits import BadConfiguration, BadData
from service.settings.train import TrainSettings

ADAPTER = "default"
TEXT_ENCODER_TARGETS = ["q_proj", "k_proj", "v_proj", "out_proj"]


def add_lora(unet: UNet2DConditionModel, settings: TrainSettings, text_encoder: CLIPTextModel | None = None) -> None:
    """Freezes the models and injects a LoRA in float32; raises BadConfiguration for a target module that there is not."""
    check_targets(unet, settings.target_modules)
    add_adapter(unet, settings.target_modules, settings)
    if text_encoder is not None:
        add_adapter(text_encoder, TEXT_ENCODER_TARGETS, settings)


def add_adapter(model: UNet2DConditionModel | CLIPTextModel, targets: list[str], settings: TrainSettings) -> None:
    model.requires_grad_(False)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.lora_alpha,
        init_lora_weights="gaussian" if settings.init == "gaussian" else True,
        target_modules=list(targets),
        use_rslora=settings.rslora,
        # In a text encoder transformers does not read magnitudes back: the LoRA would not be the one that was trained.
        use_dora=settings.dora and isinstance(model, UNet2DConditionModel),
    )
    model.add_adapter(config, adapter_name=ADAPTER)
    for parameter in lora_parameters(model):
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


def keep_autocast_in_charge(model: nn.Module) -> None:
    """Stops PEFT from turning every activation into float32 and back: autocast chooses the precision of the adapter too."""
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.cast_input_dtype_enabled = False


def lora_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The trainable parameters, in the order of the modules."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def lora_state(unet: UNet2DConditionModel, text_encoder: CLIPTextModel | None = None) -> dict[str, Tensor]:
    """The adapter's tensors under PEFT's names, after `unet.` or `text_encoder.`, on the CPU."""
    models = {"unet": unet} if text_encoder is None else {"text_encoder": text_encoder, "unet": unet}
    state = {
        f"{part}.{name}": tensor.detach().cpu().contiguous()
        for part, model in models.items()
        for name, tensor in get_peft_model_state_dict(model, adapter_name=ADAPTER, save_embedding_layers=False).items()
    }
    return {name: state[name] for name in sorted(state)}


def load_lora_state(
    state: Mapping[str, Tensor], unet: UNet2DConditionModel, text_encoder: CLIPTextModel | None = None
) -> None:
    """Puts `state` into the adapter; raises BadData unless every tensor arrived."""
    for part, model in (("unet", unet), ("text_encoder", text_encoder)):
        if model is not None:
            own = {name.removeprefix(part + "."): t for name, t in state.items() if name.startswith(part + ".")}
            set_peft_model_state_dict(model, own, adapter_name=ADAPTER)
    present = lora_state(unet, text_encoder)
    if present.keys() != state.keys() or any(not torch.equal(present[name], state[name].cpu()) for name in present):
        raise BadData("the checkpoint's LoRA does not fit the U-Net: some of its tensors were not taken")


def assert_alive(state: Mapping[str, Tensor]) -> None:
    """Raises BadData for a LoRA that changes nothing (every lora_B zero) or that is not finite."""
    if not all(bool(torch.isfinite(tensor).all()) for tensor in state.values()):
        raise BadData("the LoRA has weights that are not finite; it is not published")
    if not any(bool(tensor.any()) for name, tensor in state.items() if "lora_B" in name):
        raise BadData("the LoRA has no effect, all of its lora_B are zero; it is not published")


@torch.no_grad()
def assert_effect(unet: UNet2DConditionModel, inputs: tuple[Tensor, ...]) -> None:
    """Raises BadData when the U-Net, called with `inputs`, predicts the same with the adapter as without."""
    styled: Any = unet(*inputs, return_dict=False)[0]
    unet.disable_adapters()
    try:
        base = unet(*inputs, return_dict=False)[0]
    finally:
        unet.enable_adapters()
    if torch.equal(styled, base):
        raise BadData("the LoRA has no effect: the U-Net predicts the same with it as without; it is not published")
