"""Which settings class belongs to which job, and what follows from all of them: known variables, README tables."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError

from service.exits import BadConfiguration
from service.settings.common import CommonSettings, flag_name, variable_name
from service.settings.data_prep import DataPrepSettings
from service.settings.demo import DemoSettings
from service.settings.doctor import DoctorSettings
from service.settings.evaluate import EvaluateSettings
from service.settings.infer import InferSettings
from service.settings.models import FamilySettings
from service.settings.prune import PruneSettings
from service.settings.train import TrainSettings

SETTINGS: dict[str, type[CommonSettings]] = {
    "data-prep": DataPrepSettings,
    "train": TrainSettings,
    "infer": InferSettings,
    "evaluate": EvaluateSettings,
    "demo": DemoSettings,
    "doctor": DoctorSettings,
    "prune": PruneSettings,
}
PREFIXES = ("ARTIFACTS_", "DATA_PREP_", "DOCTOR_", "EVALUATE_", "INFER_", "MODEL_", "PRUNE_", "TRAIN_")


def known_variables() -> set[str]:
    return {variable_name(settings, field) for settings in SETTINGS.values() for field in settings.model_fields}


def misspelt_variables(environment: Iterable[str]) -> dict[str, str | None]:
    """Variables of `environment` that bear one of our prefixes and are none of ours → the nearest that is, if any is near."""
    known = known_variables()
    unknown = sorted(name for name in environment if name.upper().startswith(PREFIXES) and name.upper() not in known)
    return {name: next(iter(difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.6)), None) for name in unknown}


def check_variables(environment: Mapping[str, str]) -> None:
    """Raises BadConfiguration when a variable is misspelt: a setting that silently does nothing costs a GPU hour."""
    misspelt = misspelt_variables(environment)
    if misspelt:
        told = [
            f"{name} is no setting" + (f", did you mean {near}?" if near else "") for name, near in misspelt.items()
        ]
        raise BadConfiguration("; ".join(told))


def explain_validation(settings: type[CommonSettings], error: ValidationError) -> str:
    """All that is wrong with the values in one line, by the names of the variables."""
    told = []
    for problem in error.errors():
        message = problem["msg"].removeprefix("Value error, ")
        if not problem["loc"]:
            told.append(message)
            continue
        field = str(problem["loc"][0])
        variable = variable_name(settings, field) if field in settings.model_fields else field.upper()
        told.append(f"{variable}={problem['input']!r}: {message}")
    return "; ".join(told)


def readme_table(settings: type[CommonSettings]) -> str:
    """Markdown table of the fields that `settings` does not share with the other jobs."""
    bases = [base for base in (FamilySettings, CommonSettings) if not issubclass(base, settings)]
    shared = set(bases[0].model_fields) if bases else set()
    rows = ["| Variable | Flag | Default | Meaning |", "|---|---|---|---|"]
    for name, field in settings.model_fields.items():
        if name not in shared:
            cells = (
                variable_name(settings, name),
                flag_name(settings, name),
                shown(field.default),
                (field.description or "") + choices(field.annotation),
            )
            rows.append("| `{}` | `{}` | {} | {} |".format(*(cell.replace("|", "\\|") for cell in cells)))
    return "\n".join(rows)


def choices(annotation: Any) -> str:
    """What a setting may be, where that is one of a few words."""
    words = get_args(annotation) if get_origin(annotation) is Literal else ()
    return f" One of {', '.join(f'`{word}`' for word in words)}." if words else ""


def shown(default: Any) -> str:
    """A default as a user would write it in the environment."""
    if default is None:
        return ""
    if isinstance(default, list):
        return "`" + ("\\n" if any("," in item for item in default) else ",").join(default) + "`"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"
