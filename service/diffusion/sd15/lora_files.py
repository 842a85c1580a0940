"""The adapter as files: one for diffusers, and one for ComfyUI, A1111, InvokeAI and kohya's scripts.

Both give the trained model back in every reader that is promised; what a reader cannot apply as it was trained has no file
for it. service/training/README.md has the table of what loads where.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from safetensors.torch import save_file
from torch import Tensor

from service.artifacts.header import complete_header
from service.diffusion.family import Denoiser, LoraFiles
from service.diffusion.lora import ADAPTER, WEIGHTS_NAME, lora_state, part_of

ELSEWHERE = "comfyui-a1111-invokeai-kohya"
"""The folder of the other file: of two side by side, people gave ComfyUI the first, and it applied none of it."""
NO_DORA = "ComfyUI, A1111, InvokeAI and kohya's scripts apply a DoRA otherwise than it was trained, without an error"
NEEDED = "diffusers 0.32 or newer, with PEFT"
KOHYA_PARTS = {"lora_A.weight": "lora_down.weight", "lora_B.weight": "lora_up.weight"}
KOHYA_PREFIXES = {"unet.": "lora_unet_", "text_encoder.": "lora_te_"}
INNER = "text_model."
"""CLIPTextModel had an inner module of this name until transformers 5, and readers still look for it."""


def save_lora(
    folder: Path, denoiser: Denoiser, name: str = "lora", facts: Mapping[str, str] | None = None
) -> LoraFiles:
    """Writes the files of the adapter in `unet` and, where it has one, `text_encoder`.

    name: the run's, which the file for other programs bears; facts: for the headers, where programs show them.
    """
    state, config = _as_transformers_4_names_it(lora_state(denoiser)), _config(denoiser)
    _save_for_diffusers(folder / WEIGHTS_NAME, state, config, facts or {})
    elsewhere = None if config.use_dora else f"{ELSEWHERE}/{name}.safetensors"
    if elsewhere:
        _save_for_others(folder / elsewhere, state, config, facts or {})
    return LoraFiles(
        pipeline=StableDiffusionPipeline.__name__,
        weights=WEIGHTS_NAME,
        needs=NEEDED,
        elsewhere=elsewhere,
        missing="" if elsewhere else NO_DORA,
        inside="U-Net and text encoder" if "text_encoder" in denoiser.adapted else "the U-Net",
        tag="stable-diffusion",
    )


def _save_for_diffusers(file: Path, state: Mapping[str, Tensor], config: Any, facts: Mapping[str, str]) -> None:
    """Under diffusers' own names, with the scale multiplied into lora_B.

    So alpha is the rank, which every version takes it to be without being told. What could tell it is the configuration of
    PEFT in the header: older versions of diffusers do not read it (an alpha of twice the rank had half the effect), those in
    between fail over entries that their PEFT does not know. A factor that is a power of two changes no bit of a weight; any
    other rounds it once, by 6e-8 at most.
    """
    scale = _alpha(config) / config.r
    scaled = {name: tensor * scale if "lora_B" in name else tensor for name, tensor in state.items()}
    layers = {part: convert_state_dict_to_diffusers(part_of(scaled, part)) for part in _parts(state)}
    StableDiffusionPipeline.save_lora_weights(
        file.parent,
        unet_lora_layers=layers["unet"],
        text_encoder_lora_layers=layers.get("text_encoder"),
        weight_name=file.name,
    )
    complete_header(file, {**_model_facts(config.r, config.r), **facts})


def _save_for_others(file: Path, state: Mapping[str, Tensor], config: Any, facts: Mapping[str, str]) -> None:
    """Under kohya's names, lora_unet_<module with underscores>.{lora_down.weight, lora_up.weight, alpha}.

    The alpha is written out for each module: without it the readers take the rank, and the effect would be another one.
    """
    alpha = _alpha(config)
    kohya: dict[str, Tensor] = {}
    for name, tensor in state.items():
        part = next(p for p in KOHYA_PARTS if name.endswith(p))
        prefix = next(p for p in KOHYA_PREFIXES if name.startswith(p))
        module = name.removeprefix(prefix).removesuffix("." + part)
        key = KOHYA_PREFIXES[prefix] + module.replace(".", "_")
        kohya[f"{key}.{KOHYA_PARTS[part]}"] = tensor
        kohya[f"{key}.alpha"] = torch.tensor(alpha)
    file.parent.mkdir(exist_ok=True)
    save_file(kohya, file)
    complete_header(file, {**_model_facts(config.r, alpha), **facts})


def _as_transformers_4_names_it(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """With the text encoder's inner name, which diffusers takes out again where there is none.

    Without it, diffusers with transformers 4 finds no module of the text encoder and ends with an IndexError.
    """
    renamed = {}
    for name, tensor in state.items():
        part, _, module = name.partition(".")
        inner = INNER if part == "text_encoder" else ""
        renamed[f"{part}.{inner}{module.removeprefix(INNER)}"] = tensor
    return renamed


def _parts(state: Mapping[str, Tensor]) -> set[str]:
    return {name.split(".")[0] for name in state}


def _config(denoiser: Denoiser) -> Any:
    """PEFT's configuration of the adapter in the U-Net; that in the text encoder has the same rank and alpha."""
    configs: Any = denoiser.adapted["unet"].peft_config
    return configs[ADAPTER]


def _alpha(config: Any) -> float:
    """The alpha with which alpha / rank is the scale, which is all that other programs know.

    That of a rank-stabilised LoRA is alpha / √rank.
    """
    return float(config.lora_alpha) * (math.sqrt(config.r) if config.use_rslora else 1.0)


def _model_facts(rank: int, alpha: float) -> dict[str, str]:
    """What programs show of a file (Stability's model metadata standard, and kohya's own keys). alpha: the file's."""
    return {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.implementation": "https://github.com/huggingface/diffusers",
        "ss_base_model_version": "sd_v1",
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(float(alpha)),
    }
