"""Measurements: what models said about pictures, one by one, before anything was concluded from it.

measurements.json says what was measured, arrays.safetensors holds the figures: one array a measurement, by name, whose first
dimension counts pictures or held-out images in the order of measurements.json. So a decision is made anew, with another
threshold or confidence, without a model.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from service.artifacts.documents import check_schema, first_complaint
from service.artifacts.publishing import Artifact, publish
from service.exits import BadData
from service.storage.interface import ObjectStore

KIND = "measurements"
SCHEMA = 1
"""Highest schema version of measurements.json that this program reads, and the one that it writes."""
JSON_FILE = "measurements.json"
ARRAYS_FILE = "arrays.safetensors"

FILES = {JSON_FILE: "What was measured.", ARRAYS_FILE: "The figures, one array a measurement."}

Arrays = Mapping[str, NDArray[Any]]


class Candidate(BaseModel):
    """A strength of the LoRA that was tried on the prompts that choose, and what became of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    scale: float = Field(description="The strength; 1 is that of the training.")
    style_distance: float = Field(description="Distance to the style (KID) of what it drew.")
    adherence: float = Field(description="Mean CLIPScore of what it drew, 0 to 100.")
    images: str = Field(description="Path of what it drew below ARTIFACTS_URI.")


class Measured(BaseModel):
    """What the arrays are of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    images: str = Field(description="Path of the measured images below ARTIFACTS_URI.")
    champion_images: str | None = Field(
        None, description="Path of the champion's, of the same prompts and seeds; null where no other LoRA reigned."
    )
    prompts: list[str] = Field(description="The prompt of each picture; base and LoRA drew the same ones.")
    scale: float = Field(1.0, description="Strength of the LoRA.")
    candidates: list[Candidate] = Field(
        [],
        description="The strengths of which this one was chosen, by other prompts than these; empty for a single one.",
    )
    variations: int = Field(gt=0, description="Pictures of each side for each prompt.")
    held_out: list[str] = Field(description="Names of the held-out images.")


@dataclass(frozen=True)
class Measurements:
    """All measurements of one set of images. arrays: by name; their shapes and units stand in `evaluation.criteria`."""

    of: Measured
    arrays: Arrays


def write(
    store: ObjectStore, folder: Path, *, path: str, parents: Sequence[str], recipe: Mapping[str, Any]
) -> Artifact:
    """Publishes the measurements in `folder`. parents: the LoRA, the data set, and the images."""
    return publish(store, folder, kind=KIND, kind_schema=SCHEMA, path=path, parents=parents, settings=recipe)


def write_arrays(measurements: Measurements, folder: Path) -> None:
    """Writes both files into `folder`; the same measurements give the same bytes."""
    (folder / JSON_FILE).write_text(measurements.of.model_dump_json(indent=2) + "\n", encoding="utf-8")
    save_file({name: np.ascontiguousarray(array) for name, array in measurements.arrays.items()}, folder / ARRAYS_FILE)


def read_arrays(folder: Path) -> Measurements:
    """The measurements of a fetched folder; raises BadData for what are none.

    Raises WrittenByNewer for those of a newer schema.
    """
    try:
        content = json.loads((folder / JSON_FILE).read_text(encoding="utf-8"))
        check_schema(content["schema_version"], SCHEMA, str(folder / JSON_FILE))
        measured = Measured.model_validate(content)
        return Measurements(measured, load_file(folder / ARRAYS_FILE))
    except ValidationError as error:
        raise BadData(f"{folder / JSON_FILE} is not valid: {first_complaint(error)}") from error
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise BadData(f"{folder} holds no measurements: {error}") from error
