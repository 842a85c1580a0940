"""How long things may be, and what must say what it does.

Long files and functions, and constructors of many parameters, each usually hide a second responsibility.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SERVICE = Path(__file__).parents[2] / "service"
LONGEST_FILE = 350
LONGEST_FUNCTION = 50
MOST_PARAMETERS = 7
DOCUMENTED = ("artifacts", "storage", "diffusion", "evaluation")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules() -> list[Path]:
    return sorted(SERVICE.rglob("*.py"))


def functions(path: Path) -> Iterator[Function]:
    yield from (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, Function))


def public_definitions(path: Path) -> Iterator[Function | ast.ClassDef]:
    """Functions and classes of a module, and methods of its public classes, whose names begin with no underscore."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from (part for part in node.body if isinstance(part, Function) and not part.name.startswith("_"))


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SERVICE)))
def test_no_file_function_or_constructor_is_too_long_to_be_seen_at_once(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE
    for function in functions(path):
        assert function.end_lineno is not None
        assert function.end_lineno - function.lineno < LONGEST_FUNCTION, function.name
        if function.name == "__init__":
            parameters = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
            assert len(parameters) - 1 <= MOST_PARAMETERS, path


@pytest.mark.parametrize(
    "path", [path for room in DOCUMENTED for path in sorted((SERVICE / room).rglob("*.py"))], ids=lambda path: path.name
)
def test_what_other_modules_use_of_the_lower_rooms_is_documented(path: Path) -> None:
    assert [definition.name for definition in public_definitions(path) if not ast.get_docstring(definition)] == []
