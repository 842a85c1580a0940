"""The formats for people: service/artifacts/README.md, from the models that read and write them."""

import dataclasses
import inspect
import re
from datetime import datetime
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from service.artifacts import layout, lines, notes, preparation_layout
from service.artifacts.kinds import (
    checkpoint,
    dataset,
    evaluation,
    exclusions,
    images,
    lora,
    measurements,
    model,
    registry,
    retraining,
    rows,
    samples,
    tensorboard,
    votes,
)
from service.artifacts.kinds.kind import Statement
from service.artifacts.manifest import FileEntry, Manifest
from service.artifacts.places import Place

PAGE = Path(__file__).parents[1] / "service" / "artifacts" / "README.md"
KINDS: list[tuple[ModuleType, list[type[Place]], list[type]]] = [
    (dataset, [layout.Dataset], [dataset.Provenance]),
    (checkpoint, [layout.Checkpoint], []),
    (lora, [layout.Lora, layout.CappedLora], [lora.MetricsLine]),
    (images, [layout.Images, layout.Unprompted, layout.Rival, layout.Tried], []),
    (measurements, [layout.Measurements], [measurements.Measured]),
    (
        evaluation,
        [layout.Evaluation],
        [
            evaluation.Evaluation,
            evaluation.Finding,
            evaluation.Interval,
            evaluation.Missing,
            evaluation.Counts,
            evaluation.Nearest,
            evaluation.Champion,
            votes.Votes,
            votes.Vote,
        ],
    ),
    (retraining, [layout.Retraining], [retraining.Retraining]),
    (samples, [layout.Samples], []),
    (tensorboard, [layout.Tensorboard], []),
    (model, [layout.Model], []),
    (rows, [layout.Latents, layout.Prompts], []),
]
NOTES: list[tuple[type[Place], list[type]]] = [
    (layout.DatasetNote, [notes.DatasetNote]),
    (layout.ConfigNote, [notes.Config]),
    (layout.StatusNote, [notes.Status, notes.LastCheckpoint]),
    (layout.AttemptNote, [notes.Attempt]),
    (layout.CompleteNote, [notes.Complete]),
    (layout.SpentNote, [notes.Spent]),
    (preparation_layout.PublishedNote, [notes.PublishedNote]),
    (layout.RegistryEntry, [registry.Entry]),
    (layout.Exclusion, [exclusions.Exclusion, exclusions.ExcludedImage]),
]
LINES: list[tuple[type[Place], list[type]]] = [
    (preparation_layout.Candidates, [lines.CandidateLine]),
    (preparation_layout.Outcomes, [lines.OutcomeLine, lines.FeaturesLine]),
    (preparation_layout.Shard, [lines.ShardHead]),
    (layout.Captions, [lines.CaptionLine]),
]
INTRODUCTION = """# Formats

What lies below ARTIFACTS_URI, for whoever reads it with other programs. `make readme` writes this page from the classes that
read and write these formats: `layout.py` and `preparation_layout.py` have every path, `kinds/` a module for each kind of
artifact, `notes.py` the rest.

An **artifact** is a folder with a `MANIFEST.json` in it, which is written last: without it there is no artifact, and nobody may
read its files. With it they never change. Files that the manifest does not list are none of it. The one exception is
`registry/<model>/champion`, a copy of the LoRA that is the champion, at an address that stays: it follows the history. Its
manifest goes first and comes last, so that who reads it as an artifact finds none while it changes, or notices by the hashes,
and reads again. Its tensors and its other files are the LoRA's; its model card and the headers of its weights tell the evidence
too (`sdlora.evaluation`, `sdlora.decision`, `sdlora.reason`, `sdlora.findings`, `sdlora.licences`, …), and `champion` in the
settings of its manifest what the history says of the LoRA.

Every format has a schema version. Older ones are read, for ever; a newer one is refused with exit code 78 and one line, and
nothing is deleted that a newer version wrote. A field that is not in a file has its default. Whoever changes a format adds one
to its version, in its module, and a store of before to `tests/compatibility`."""
SAID = {"schema_version": "Version of this format.", "counts": "How much was measured."}
PLAIN = {str: "text", int: "integer", float: "number", bool: "true or false", NoneType: "null", Any: "any",
         datetime: "time (ISO 8601)"}  # fmt: skip


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION, "## MANIFEST.json", described(Manifest), described(FileEntry)]
    for kind, places, models in KINDS:
        parts += [f"## {name_of(kind)}", paragraph(kind)]
        parts += ["At " + " and ".join(f"`{shown(place)}/`" for place in places) + ":"]
        parts += [table(("File", "Content"), [(f"`{file}`", content) for file, content in kind.FILES.items()])]
        parts += [described(model) for model in models]
    parts += [
        "## Notes",
        "JSON files that are no artifacts: each is written whole, and all but registry entries may be replaced.",
    ]
    parts += [part for place, models in NOTES for part in at(place, models)]
    parts += ["## Lines", paragraph(lines)]
    parts += [part for place, models in LINES for part in at(place, models)]
    parts += [
        "## Paths",
        table(
            ("Path", "What is there"),
            [(f"`{shown(place)}`", paragraph(place)) for place in (*layout.PLACES, *preparation_layout.PLACES)],
        ),
    ]
    return "\n\n".join(parts) + "\n"


def at(place: type[Place], models: list[type]) -> list[str]:
    """The path, and what stands there."""
    return [f"### {shown(place)}", *(described(model, heading=number > 0) for number, model in enumerate(models))]


def name_of(kind: ModuleType) -> str:
    """The name in the manifest: the module's, or that of the one class in it that reads such manifests."""
    if hasattr(kind, "KIND"):
        return str(kind.KIND)
    classes = [value for value in vars(kind).values() if inspect.isclass(value) and value.__module__ == kind.__name__]
    [name] = [value.KIND for value in classes if issubclass(value, Statement)]
    return name


def described(model: type, *, heading: bool = True) -> str:
    """The fields of a model, and what it says of itself."""
    rows = [(f"`{name}`", kind, text) for name, kind, text in fields_of(model)]
    title = [f"### {model.__name__}"] if heading else []
    return "\n\n".join([*title, paragraph(model), table(("Field", "Type", "Meaning"), rows)])


def fields_of(model: type) -> list[tuple[str, str, str]]:
    if not issubclass(model, BaseModel):
        return [(field.name, type_name(field.type), "") for field in dataclasses.fields(model)]
    return [
        (
            field.serialization_alias or field.alias or name,
            type_name(field.annotation),
            field.description or SAID.get(name, ""),
        )
        for name, field in model.model_fields.items()
    ]


def type_name(annotation: Any) -> str:
    """A type in words that say what stands in the JSON."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in PLAIN:
        return PLAIN[annotation]
    if origin in (Union, UnionType):
        return " or ".join(map(type_name, arguments))
    if origin is Literal:
        return " or ".join(f"`{value}`" if value != "" else "empty" for value in arguments)
    if origin in (list, tuple):
        return f"list of {type_name(arguments[0])}"
    if origin is dict:
        return "object" if arguments[1] is Any else f"object of {type_name(arguments[1])}"
    if hasattr(annotation, "__metadata__"):
        return type_name(arguments[0])
    return str(annotation.__name__)


def shown(place: type[Place]) -> str:
    """The template as people write it: runs/<run>/lora."""
    return re.sub(r"\{(\w+)(?::[^}]*)?\}", r"<\1>", place.template)


def paragraph(of: Any) -> str:
    """What a class or a module says of itself: of a class the first paragraph."""
    return (
        " ".join((inspect.getdoc(of) or "").split("\n\n")[0].split())
        if inspect.isclass(of)
        else inspect.getdoc(of) or ""
    )


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
