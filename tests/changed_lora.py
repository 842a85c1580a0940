"""A trained LoRA as that of another run, with its weights changed."""

import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from service.artifacts.fetching import fetch
from service.artifacts.kinds.lora import read
from service.artifacts.publishing import publish
from service.diffusion.lora import WEIGHTS_NAME
from service.storage.interface import ObjectStore

Change = Callable[[str, Tensor], Tensor]
UP = (".lora.up.", ".lora_B.")
"""What diffusers calls the matrix that begins with zeros: of attention, and of all other layers."""


def scaled(scale: float) -> Change:
    """Multiplies what the LoRA adds to every layer."""
    return lambda key, weights: weights * scale if any(up in key for up in UP) else weights


def publish_changed(store: ObjectStore, source: str, run_id: str, change: Change, work_dir: Path) -> None:
    """Publishes the LoRA at `source` as that of the run `run_id`. change: takes the name and the weights of each tensor."""
    trained = read(store, source)
    folder = work_dir / run_id
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(fetch(store, source, work_dir), folder)
    (folder / "MANIFEST.json").unlink()
    with safe_open(folder / WEIGHTS_NAME, "pt") as file:
        tensors = {key: change(key, file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118 - not a mapping
        metadata = file.metadata()
    save_file(tensors, folder / WEIGHTS_NAME, metadata)
    publish(store, folder, kind="lora", path=f"runs/{run_id}/lora", parents=trained.parents, settings=trained.recipe)
