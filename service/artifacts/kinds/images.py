"""Images that were drawn of prompts: base/ by the base model, lora/ with the LoRA at the same seeds, and both in one grid.

Those of a champion, which `evaluate` compares another LoRA with, are lora/ alone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from service.artifacts.kinds.kind import Statement
from service.artifacts.publishing import Artifact, publish
from service.storage.interface import ObjectStore

BASE = "base"
LORA = "lora"
GRID = "grid.png"


FILES = {
    f"{BASE}/00000.png, …": "What the base model drew, prompt by prompt. Each tells how, in the texts `parameters`, "
    "laid out as A1111 does, and `sdlora`, the whole recipe in JSON.",
    f"{LORA}/00000.png, …": "The same prompts and seeds with the LoRA.",
    GRID: "Both in one picture.",
}


class Images(Statement):
    """Published images. Their parent is the LoRA; `lora` and `lora_version` stand in the recipe as well."""

    KIND = "images"


def write(store: ObjectStore, folder: Path, *, path: str, lora: str, recipe: Mapping[str, Any]) -> Artifact:
    """Publishes the images in `folder` under `path`."""
    return publish(
        store, folder, kind=Images.KIND, kind_schema=Images.SCHEMA, path=path, parents=[lora], settings=recipe
    )


def read(store: ObjectStore, path: str) -> Images:
    """What the images at `path` say of themselves."""
    return Images.read(store, path)
