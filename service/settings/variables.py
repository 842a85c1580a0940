"""The variables of the environment that are ours: which there are, which are misspelt, and what is wrong with their values."""

import difflib
from collections.abc import Iterable, Mapping

from pydantic import ValidationError

from service.exits import BadConfiguration
from service.settings.catalogue import all_settings
from service.settings.common import CommonSettings, variable_name

SHARED_PREFIXES = ("ARTIFACTS_", "MODEL_")
RENAMED = {
    "AWS_CONNECT_TIMEOUT": "S3_CONNECT_TIMEOUT",
    "AWS_READ_TIMEOUT": "S3_READ_TIMEOUT",
    "AWS_S3_ADDRESSING_STYLE": "S3_ADDRESSING_STYLE",
}
"""What some settings were called before, in the namespace of others."""
NEAR, VERY_NEAR = 0.6, 0.8
"""Similarity of two names from which one may be meant by the other; and from which it must be."""


def known_variables() -> set[str]:
    return {variable_name(settings, field) for settings in all_settings().values() for field in settings.model_fields}


def misspelt_variables(environment: Iterable[str]) -> dict[str, str | None]:
    """Variables of `environment` that are meant to be ours and are not → the nearest that is, if any is near.

    Whatever bears one of our prefixes is meant to be ours. S3_ is a prefix of others too: there a name must be nearly right.
    """
    known = known_variables()
    strict = (*SHARED_PREFIXES, *(f"{own}_" for settings in all_settings().values() if (own := settings.own_prefix())))
    found = {}
    for name in sorted(environment):
        upper = name.upper()
        ours = upper.startswith(strict)
        if upper not in known and (ours or upper.startswith("S3_")):
            near = difflib.get_close_matches(upper, known, n=1, cutoff=NEAR if ours else VERY_NEAR)
            if ours or near:
                found[name] = next(iter(near), None)
    return found


def check_variables(environment: Mapping[str, str]) -> None:
    """Raises BadConfiguration when a variable is misspelt: a setting that silently does nothing costs a GPU hour."""
    problems = [
        f"{name} is no setting" + (f", did you mean {near}?" if near else "")
        for name, near in misspelt_variables(environment).items()
    ]
    problems += [f"{old} is called {new} now" for old, new in RENAMED.items() if old in environment]
    if problems:
        raise BadConfiguration("; ".join(problems))


def explain_validation(settings: type[CommonSettings], error: ValidationError) -> str:
    """All that is wrong with the values in one line, by the names of the variables."""
    problems = []
    for problem in error.errors():
        message = problem["msg"].removeprefix("Value error, ")
        if not problem["loc"]:
            problems.append(message)
            continue
        field = str(problem["loc"][0])
        variable = variable_name(settings, field) if field in settings.model_fields else field.upper()
        problems.append(f"{variable}={problem['input']!r}: {message}")
    return "; ".join(problems)
