"""A LoRA: its weights, a model card, what was measured on the way, curves and samples.

Version 2 has the weights for other programs in a folder of their own, under the run's name, and none of a DoRA, which those
programs apply otherwise than it was trained; in the weights for diffusers, alpha is the rank, and the names in the text encoder
begin with `text_encoder.text_model.`. Version 1 has `kohya_lora_weights.safetensors` in its place, and the alpha in the header
of the weights for diffusers.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from service.artifacts import layout
from service.artifacts.kinds.kind import Statement
from service.artifacts.manifest import Manifest
from service.artifacts.publishing import Artifact, list_artifacts, publish, publish_version
from service.exits import BadData
from service.storage.interface import NotFound, ObjectStore

CARD = "README.md"
METRICS = "metrics.jsonl"
CURVES = "curves.png"
SAMPLES = "samples.png"

FILES = {
    "pytorch_lora_weights.safetensors": "The weights as diffusers reads them.",
    "comfyui-a1111-invokeai-kohya/<run>.safetensors": "The same as these programs read them; not of a DoRA, nor of a LoRA "
    "from elsewhere.",
    CARD: "Model card: what it is, how it was made, how to use it.",
    METRICS: "What was measured on the way, a line of JSON each, by step.",
    CURVES: "The same as a picture.",
    SAMPLES: "Pictures by the base model and by the LoRA; not with TRAIN_SAMPLE_EVERY=0.",
}

CAPPED_AT = "capped_at"
"""In the recipe of a LoRA whose training was ended by a limit: the step after which."""

Curve = list[tuple[int, float]]
"""(optimizer step, value), by step."""


class Lora(Statement):
    """A published LoRA. Its one parent is the data set that it was trained on."""

    KIND = "lora"
    SCHEMA = 2

    parents: list[str] = Field(description="Paths of the artifacts that it was made of.")
    scale: float = Field(
        1.0, description="Strength at which it is to be used; the registry may say another for a champion."
    )

    @classmethod
    def of(cls, path: str, manifest: Manifest) -> "Lora":
        """The statement that is in a manifest."""
        return cls(path=path, version=manifest.version, recipe=manifest.settings, parents=manifest.parents)

    @property
    def dataset(self) -> str:
        """Path of the data set that it was trained on. Raises BadData for a LoRA from elsewhere that names none."""
        if not self.parents:
            raise BadData(f"the LoRA {self.path} does not say which data set it was trained on: it has no parents")
        return self.parents[0]

    @property
    def resolution(self) -> int:
        """Side in pixels at which it was trained. Raises BadData for a LoRA from elsewhere that does not tell it."""
        found = self.recipe.get("resolution")
        if not isinstance(found, int):
            raise BadData(f"the LoRA {self.path} does not say at which resolution it was trained")
        return found

    @property
    def capped_at(self) -> int | None:
        """The step after which a limit of time or cost ended its training; None for one that was trained to its end."""
        return self.recipe.get(CAPPED_AT)


class MetricsLine(BaseModel):
    """A line of metrics.jsonl: either of the training since the line before, or of a measurement on held-out images.

    A measurement also has `held_out_loss_<t>` for each timestep t that is measured.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    step: int = Field(description="Optimizer steps that were taken.")
    loss: float | None = Field(None, description="Mean training loss.")
    gradient_norm: float | None = Field(None, description="Mean norm of the gradient.")
    learning_rate: float | None = Field(None, description="Learning rate at this step.")
    held_out_loss: float | None = Field(None, description="Mean loss on the held-out images.")
    held_out_ratio: float | None = Field(None, description="The same, where 1 is the base model.")


class Curves(NamedTuple):
    """What was measured on the way."""

    loss: Curve
    held_out_loss: Curve


def write(
    store: ObjectStore,
    folder: Path,
    *,
    run_id: str,
    dataset: str,
    recipe: Mapping[str, Any],
    capped_at: int | None = None,
) -> Artifact:
    """Publishes the LoRA in `folder` as that of a run; `capped_at`: as the best so far of one that was ended at this step."""
    path = layout.Lora(run_id).path
    if capped_at is not None:
        path = layout.CappedLora(run_id, capped_at).path
        recipe = {**recipe, CAPPED_AT: capped_at}
    return publish(
        store, folder, kind=Lora.KIND, kind_schema=Lora.SCHEMA, path=path, parents=[dataset], settings=recipe
    )


def write_imported(store: ObjectStore, folder: Path, *, file: str) -> Artifact:
    """Publishes the LoRA in `folder`, which was trained elsewhere, by its content. file: its name there."""
    prefix = layout.ImportedLoras().path
    return publish_version(
        store, folder, kind=Lora.KIND, kind_schema=Lora.SCHEMA, prefix=prefix, settings={"file": file}
    )


def read(store: ObjectStore, path: str) -> Lora:
    """What the LoRA at `path` says of itself."""
    return Lora.read(store, path)


def newest_capped(store: ObjectStore, run_id: str) -> Lora | None:
    """The LoRA of the run that a limit ended last, by its steps; None without one."""
    found = list_artifacts(store, layout.CappedLoras(run_id).path)
    places = [place for path in found if (place := layout.CappedLora.parse(path))]
    return read(store, max(places, key=lambda place: place.step).path) if places else None


def of_run(store: ObjectStore, run_id: str) -> Lora:
    """The LoRA of a run: the one that was trained to its end, else the newest that a limit ended. Raises NotFound."""
    try:
        return read(store, layout.Lora(run_id).path)
    except NotFound:
        if capped := newest_capped(store, run_id):
            return capped
        raise


def write_metrics(lines: Iterable[Mapping[str, Any]], folder: Path) -> None:
    """Writes metrics.jsonl: `lines` have the fields of a MetricsLine, by step."""
    with (folder / METRICS).open("w") as sink:
        sink.writelines(json.dumps(line) + "\n" for line in lines)


def read_curves(folder: Path) -> Curves:
    """The curves of a fetched LoRA; empty ones for a LoRA from elsewhere, which has no metrics.jsonl."""
    file = folder / METRICS
    found = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    lines = [MetricsLine.model_validate(line) for line in found]
    return Curves(
        [(line.step, line.loss) for line in lines if line.loss is not None],
        [(line.step, line.held_out_loss) for line in lines if line.held_out_loss is not None],
    )
