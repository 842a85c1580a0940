"""Samples: what base and LoRA draw at a step of the training, in one picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from service.artifacts import layout
from service.artifacts.publishing import Artifact, publish
from service.storage.interface import ObjectStore

KIND = "samples"
FILES = {"samples.png": "The pictures."}


def write(store: ObjectStore, folder: Path, *, run_id: str, step: int, recipe: Mapping[str, Any]) -> Artifact:
    """Publishes the samples in `folder` as those of a step."""
    return publish(store, folder, kind=KIND, path=layout.Samples(run_id, step).path, settings=recipe)
