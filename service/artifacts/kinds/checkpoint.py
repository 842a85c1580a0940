"""A checkpoint: all that a training needs to go on from a step. What its files hold is the trainer's business."""

import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from service.artifacts import layout
from service.artifacts.kinds.kind import Statement
from service.artifacts.publishing import publish
from service.storage.interface import ObjectStore

FILES = {
    "lora.safetensors": "The LoRA at this step, under PEFT's names.",
    "best.safetensors": "The LoRA with the lowest held-out loss so far.",
    "*.bin, *.pkl": "State of optimizer, learning rate, averages and progress, as Accelerate saves it; for `train` alone.",
}


class Checkpoint(Statement):
    """A published checkpoint. It has no parents; the data set stands in its recipe."""

    KIND = "checkpoint"

    @property
    def step(self) -> int:
        """Optimizer steps that were taken."""
        return step_of(self.path)


def write(store: ObjectStore, folder: Path, *, run_id: str, step: int, recipe: Mapping[str, Any]) -> str:
    """Publishes the checkpoint in `folder`; returns its path, which no other has: two writers never touch one file."""
    path = layout.Checkpoint(run_id, step, uuid.uuid4().hex[:12]).path
    publish(store, folder, kind=Checkpoint.KIND, kind_schema=Checkpoint.SCHEMA, path=path, settings=recipe)
    return path


def read(store: ObjectStore, path: str) -> Checkpoint:
    """What the checkpoint at `path` says of itself."""
    return Checkpoint.read(store, path)


def newest_first(paths: Iterable[str]) -> list[str]:
    """Orders paths of checkpoints by step, the newest first; anything else is left out."""
    places = filter(None, map(layout.Checkpoint.parse, paths))
    return [place.path for place in sorted(places, key=lambda place: (-place.step, place.attempt))]


def step_of(path: str) -> int:
    """The step of the checkpoint at a path of the layout."""
    place = layout.Checkpoint.parse(path)
    assert place is not None, path
    return place.step
