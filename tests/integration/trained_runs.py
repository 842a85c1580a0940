"""Runs that train on one data set, and how much their LoRAs differ."""

from pathlib import Path

import torch
from safetensors.torch import load_file


def with_dataset(folder: Path, prepared: Path) -> Path:
    """The folder of a new run with the data set of the prepared one."""
    runs = folder / "artifacts" / "runs" / "demo"
    runs.mkdir(parents=True)
    (folder / "artifacts" / "datasets").symlink_to(prepared / "artifacts" / "datasets")
    (runs / "dataset.json").write_bytes((prepared / "artifacts" / "runs" / "demo" / "dataset.json").read_bytes())
    return folder


def distance(folder: Path, other: Path) -> float:
    """Between the LoRAs of two runs, relative to the norm of the second."""

    def weights(run: Path) -> torch.Tensor:
        tensors = load_file(run / "artifacts" / "runs" / "demo" / "lora" / "pytorch_lora_weights.safetensors")
        return torch.cat([tensors[name].flatten() for name in sorted(tensors)])

    return float((weights(folder) - weights(other)).norm() / weights(other).norm())
