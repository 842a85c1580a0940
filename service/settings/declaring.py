"""How a setting is declared: each says itself whether it decides what a job makes, or only how, when and where."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import Field
from pydantic.fields import FieldInfo

Stage = Literal["collecting", "drawing", "measuring", "deciding"]
"""Parts of jobs whose results can be used again when only what comes later has changed, in the order of the work."""

STAGES: tuple[Stage, ...] = get_args(Stage)
UNKNOWN = object()
"""In place of the default of then, for settings that recipes have always had."""


@dataclass(frozen=True)
class Role:
    """What a setting does to the work.

    `stage`: it counts from there on; without one, only in what the whole job makes. `before`: the value that a recipe is
    taken to have which was written before there was the setting.
    """

    decides: bool
    stage: Stage | None = None
    before: Any = UNKNOWN


def decides(default: Any, *, stage: Stage | None = None, before: Any = UNKNOWN, **options: Any) -> Any:
    """A field that decides what is made: of two values come two results, which are never taken for each other.

    One that is added later must say what older recipes have in its place (`before`): what the code of then did, whatever
    the default is now. `options`: those of pydantic's Field.
    """
    return _declared(default, Role(decides=True, stage=stage, before=before), options)


def only_how(default: Any, **options: Any) -> Any:
    """A field that decides only how, when and where the work is done: it may be turned between two attempts."""
    return _declared(default, Role(decides=False), options)


def role_of(field: FieldInfo) -> Role | None:
    """What the declaration says; None for a field that was declared without a word about it."""
    return next((entry for entry in field.metadata if isinstance(entry, Role)), None)


def _declared(default: Any, role: Role, options: dict[str, Any]) -> Any:
    field: FieldInfo = Field(default, **options)
    field.metadata.append(role)
    return field
