"""A model of the hub, mirrored at one commit: what `from_pretrained` loads, in the folders in which the hub has it."""

from pathlib import Path
from typing import Any

from service.artifacts.kinds.kind import Statement
from service.artifacts.layout import Model as Place
from service.artifacts.publishing import Artifact, publish
from service.storage.interface import ObjectStore

FILES = {
    "*.safetensors": "Weights. Where the hub has none but a pickle, they were read from it, as the recipe tells.",
    "*.json, *.txt": "Configurations and tokenizers, byte for byte as the hub has them.",
}


class Model(Statement):
    """A mirrored model; its recipe names `model`, `revision`, and by their files the pickles that weights were `read_from`."""

    KIND = "model"


def write(store: ObjectStore, folder: Path, *, model: str, revision: str, read_from: dict[str, str]) -> Artifact:
    """Publishes the files in `folder` as the model with this id at this commit."""
    recipe: dict[str, Any] = {"model": model, "revision": revision, "read_from": read_from}
    path = Place(model, revision).path
    return publish(store, folder, kind=Model.KIND, kind_schema=Model.SCHEMA, path=path, settings=recipe)
