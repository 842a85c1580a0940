"""What a job's result is known by: the settings that decide it, and the versions of what it is made of.

The recipe that stands in a manifest is such an identity. Jobs add to it what no setting says, as `inputs`: the data set that
a run is trained on, the version of the LoRA that is drawn with; what lies behind the name of a model belongs there too.
Recipes of older versions of this program hold more, and less: what decides nothing now is passed over, and a setting that
they do not know has the value of then (`before`). So nothing that is finished or under way is refused after an upgrade.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from service.exits import BadConfiguration
from service.settings.base import variable_name
from service.settings.common import CommonSettings
from service.settings.declaring import STAGES, UNKNOWN, Stage, role_of
from service.settings.models import ModelSettings


class Difference(NamedTuple):
    """An entry of a recipe, by its variable where it is a setting, that is `there` in the store and `now` in ours."""

    name: str
    there: Any
    now: Any


def identity(settings: CommonSettings, stage: Stage | None = None, **inputs: Any) -> dict[str, Any]:
    """What decides the result, as plain JSON values, with `inputs` added; up to and including `stage` where one is named."""
    passed_over = _of_models_not_loaded(settings)
    values = settings.public()
    decisive = {
        name: values[name]
        for name in type(settings).model_fields
        if name not in passed_over and _counts(type(settings), name, stage)
    }
    return decisive | inputs


Known = TypeVar("Known", bound=CommonSettings)


def settings_of(settings: type[Known], recipe: Mapping[str, Any], **how: Any) -> Known:
    """The settings that a recipe stands for, whatever the environment says; `how` are those that decide nothing.

    What the recipe does not know has the value of then. Raises BadConfiguration for values that this version does not take.
    """
    decisive: dict[str, Any] = {}
    for name in settings.model_fields:
        if _counts(settings, name, None):
            value = recipe.get(name, _before(settings, name))
            decisive |= {} if value is UNKNOWN else {name: value}
    try:
        return settings(**decisive, **how)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        named = ".".join(map(str, problem["loc"])) or "settings"
        raise BadConfiguration(
            f"a recipe of then has {named}={problem['input']!r}, which this version does not take: {problem['msg']}"
        ) from error


def for_key(settings: type[CommonSettings], recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What of an identity goes into a key: all but settings with the value of then, so that a new setting changes no key."""
    return {name: value for name, value in recipe.items() if value != _before(settings, name)}


def differences(
    settings: type[CommonSettings], stored: Mapping[str, Any], wanted: Mapping[str, Any]
) -> list[Difference]:
    """In what a recipe that was stored, by whatever version, differs from the identity `wanted` of now."""
    found = []
    for name in sorted(wanted):
        there = stored.get(name, _default_of_then(settings, name))
        if there != wanted[name]:
            label = variable_name(settings, name) if name in settings.model_fields else name
            found.append(Difference(label, None if there is UNKNOWN else there, wanted[name]))
    return found


def same(settings: type[CommonSettings], stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether both make the same."""
    return not differences(settings, stored, wanted)


def check_identity(
    settings: type[CommonSettings], stored: Mapping[str, Any], wanted: Mapping[str, Any], where: str
) -> None:
    """Raises BadConfiguration, naming the variables, when `where` was made with others than those of now."""
    if found := differences(settings, stored, wanted):
        listed = ", ".join(f"{name} ({there} there, {now} now)" for name, there, now in found)
        raise BadConfiguration(
            f"{where} was made with other settings: {listed}; choose another RUN_ID or set them back"
        )


def _counts(settings: type[CommonSettings], name: str, stage: Stage | None) -> bool:
    role = role_of(settings.model_fields[name])
    assert role is not None, name
    if not role.decides or stage is None:
        return role.decides
    return role.stage is not None and STAGES.index(role.stage) <= STAGES.index(stage)


def _of_models_not_loaded(settings: CommonSettings) -> set[str]:
    if not isinstance(settings, ModelSettings):
        return set()
    unused = set(settings.known_models()) - set(settings.models())
    return unused | {f"{name}_revision" for name in unused}


def _default_of_then(settings: type[CommonSettings], name: str) -> Any:
    """What a recipe without the setting has in its place: as declared, else the default of now."""
    before = _before(settings, name)
    known = name in settings.model_fields
    return settings.model_fields[name].get_default(call_default_factory=True) if before is UNKNOWN and known else before


def _before(settings: type[CommonSettings], name: str) -> Any:
    field = settings.model_fields.get(name)
    role = role_of(field) if field else None
    return role.before if role else UNKNOWN
