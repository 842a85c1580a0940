"""Who may import whom: jobs → dataset | training | evaluation → diffusion → artifacts → storage → settings, logs, exits."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SERVICE = Path(__file__).parents[2] / "service"
FOUNDATION = {"settings", "logs", "exits", "stopping", "redaction", "outcome"}
ALLOWED = {
    "exits": set(),
    "stopping": {"exits"},
    "redaction": set(),
    "templates": set(),
    "cpus": set(),
    "logs": {"exits", "redaction"},
    "outcome": {"exits", "redaction"},
    "settings": {"exits", "logs", "redaction"},
    "storage": FOUNDATION,
    "artifacts": FOUNDATION | {"storage"},
    "miniature": set(),
    "diffusion": FOUNDATION | {"storage", "artifacts", "miniature"},
    "dataset": FOUNDATION | {"templates", "storage", "artifacts", "miniature", "diffusion"},
    "training": FOUNDATION | {"templates", "storage", "artifacts", "miniature", "diffusion"},
    "evaluation": FOUNDATION | {"templates", "storage", "artifacts", "miniature", "diffusion"},
    "checks": FOUNDATION | {"storage", "artifacts", "miniature", "diffusion"},
    "jobs": FOUNDATION
    | {"storage", "artifacts", "miniature", "diffusion", "dataset", "training", "evaluation", "checks"},
    "__main__": FOUNDATION | {"cpus", "jobs"},
}
IMAGES_AND_MODELS = {"torch", "torchvision", "diffusers", "transformers", "peft", "accelerate", "datasets", "PIL"}


def modules() -> list[Path]:
    return sorted(path for path in SERVICE.rglob("*.py") if path != SERVICE / "__init__.py")


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(path: Path) -> str:
    return path.relative_to(SERVICE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SERVICE)))
def test_nothing_imports_upwards_or_sideways(path: Path) -> None:
    ours = {name.split(".")[1] for name in imported(path) if name.startswith("service.")}
    assert ours - {layer(path)} <= ALLOWED[layer(path)]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SERVICE)))
def test_artifacts_and_settings_know_nothing_of_images_or_models(path: Path) -> None:
    if layer(path) in FOUNDATION | {"storage", "artifacts", "__main__"}:
        assert {name.split(".")[0] for name in imported(path)} & IMAGES_AND_MODELS == set()


def test_every_folder_has_its_place_among_the_layers() -> None:
    assert {layer(path) for path in modules()} == set(ALLOWED)
