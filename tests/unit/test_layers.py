"""Who may import whom. A room is a folder of `service/`, or a module that lies in `service/` itself."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SERVICE = Path(__file__).parents[2] / "service"

# Every arrow between two rooms, from the top down: each line may point to rooms of lines below it and to no other. Between a
# room and its own sub-rooms there is none declared: what holds there is that no module imports itself by way of others.
ARROWS: dict[str, set[str]] = {
    "jobs": {
        "artifacts",
        "artifacts.kinds",
        "checks",
        "dataset",
        "dataset.captions",
        "dataset.images",
        "dataset.report",
        "dataset.sources",
        "diffusion",
        "diffusion.drawing",
        "evaluation",
        "exits",
        "lineage",
        "logs",
        "notification",
        "outcome",
        "redaction",
        "settings",
        "stopping",
        "storage",
        "terminal",
        "training",
        "training.encoded",
        "training.processes",
    },
    "lineage": {
        "artifacts",
        "artifacts.kinds",
        "dataset",
        "dataset.images",
        "diffusion",
        "exits",
        "settings",
        "storage",
        "templates",
        "terminal",
    },
    "terminal": {"redaction"},
    "dataset.report": {"artifacts.kinds", "dataset.images", "templates"},
    "checks": {
        "artifacts",
        "artifacts.kinds",
        "diffusion",
        "exits",
        "notification",
        "settings",
        "stopping",
        "storage",
        "storage.s3",
    },
    "dataset.captions": {"artifacts", "diffusion", "exits", "logs", "settings", "stopping", "storage"},
    "dataset.images": {"diffusion", "logs", "settings", "stopping", "storage"},
    "diffusion.sd15": {"artifacts", "diffusion.drawing", "exits", "settings", "stopping"},
    "evaluation": {
        "artifacts",
        "artifacts.kinds",
        "diffusion",
        "diffusion.drawing",
        "exits",
        "settings",
        "stopping",
        "templates",
    },
    "training": {
        "artifacts",
        "artifacts.kinds",
        "diffusion",
        "diffusion.drawing",
        "exits",
        "logs",
        "outcome",
        "settings",
        "stopping",
        "storage",
        "templates",
    },
    "training.encoded": {
        "artifacts",
        "artifacts.kinds",
        "diffusion",
        "exits",
        "logs",
        "settings",
        "storage",
        "training.processes",
    },
    "dataset": {
        "artifacts",
        "artifacts.kinds",
        "cpus",
        "diffusion",
        "exits",
        "logs",
        "settings",
        "stopping",
        "storage",
    },
    "dataset.sources": {"artifacts", "exits", "miniature", "settings", "stopping", "storage"},
    "diffusion": {"artifacts", "artifacts.kinds", "exits", "miniature", "settings", "stopping", "storage"},
    "diffusion.drawing": {"artifacts", "artifacts.kinds", "exits", "logs", "settings", "stopping", "storage"},
    "evaluation.criteria": {"artifacts.kinds", "settings"},
    "artifacts": {"exits", "settings", "stopping", "storage", "templates"},
    "artifacts.kinds": {"exits", "settings", "stopping", "storage"},
    "training.processes": {"cpus", "exits", "notification", "outcome", "settings", "stopping"},
    "__main__": {"cpus", "exits", "logs", "notification", "outcome", "settings", "stopping"},
    "storage": {"exits", "logs", "settings", "stopping"},
    "storage.s3": {"exits", "settings", "stopping"},
    "notification": {"exits", "outcome", "redaction", "settings", "stopping"},
    "settings": {"exits", "logs", "miniature", "redaction"},
    "logs": {"outcome", "redaction"},
    "outcome": {"exits", "redaction"},
    "stopping": {"exits"},
    "cpus": set(),
    "exits": set(),
    "miniature": set(),
    "redaction": set(),
    "templates": set(),
}
# Knows nothing of images or models, so that a command line answers before torch is imported.
LIGHT = {
    "__main__", "exits", "logs", "notification", "outcome", "redaction", "stopping", "settings", "storage", "storage.s3",
    "artifacts", "artifacts.kinds",
}  # fmt: skip
IMAGES_AND_MODELS = {"torch", "torchvision", "diffusers", "transformers", "peft", "accelerate", "datasets", "PIL"}


def modules() -> list[Path]:
    return sorted(SERVICE.rglob("*.py"))


def dotted(path: Path) -> str:
    parts = path.relative_to(SERVICE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {dotted(path): path for path in modules()}


def imported(path: Path) -> Iterator[str]:
    """Every name that a module imports, wherever in it and for whatever reason."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules_imported(path: Path) -> set[str]:
    """Those of ours: a name is a module, or stands in one."""
    found = set()
    for name in imported(path):
        if name.startswith("service."):
            found.add(name if name in MODULES else name.rpartition(".")[0])
    return found - {dotted(path)}


def room(module: str) -> str:
    parts = module.split(".")[1:]
    if len(parts) > 1 and MODULES[module].name != "__init__.py":
        parts = parts[:-1]
    return ".".join(parts)


def arrows() -> dict[str, set[str]]:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for module, path in MODULES.items():
        if module != "service":
            found[room(module)] |= {room(other) for other in modules_imported(path) if other != "service"}
    return {name: {other for other in others if not related(name, other)} for name, others in found.items()}


def related(name: str, other: str) -> bool:
    """Whether they are one room, or one is a sub-room of the other."""
    return f"{name}.".startswith(f"{other}.") or f"{other}.".startswith(f"{name}.")


def test_the_arrows_between_rooms_are_those_that_are_declared_and_all_of_them_are_used() -> None:
    assert arrows() == ARROWS


def test_every_arrow_points_downwards() -> None:
    order = {name: line for line, name in enumerate(ARROWS)}
    upwards = [(name, other) for name, others in ARROWS.items() for other in others if order[other] <= order[name]]
    assert upwards == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    try:
        TopologicalSorter({name: modules_imported(path) for name, path in MODULES.items()}).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


@pytest.mark.parametrize("module", [module for module in MODULES if module != "service" and room(module) in LIGHT])
def test_settings_storage_and_artifacts_know_nothing_of_images_or_models(module: str) -> None:
    assert {name.split(".")[0] for name in imported(MODULES[module])} & IMAGES_AND_MODELS == set()
