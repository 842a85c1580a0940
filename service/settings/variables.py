"""The variables of the environment that are ours: which there are, which are misspelt, and what is wrong with their values."""

import difflib
import re
from collections.abc import Iterable, Mapping, MutableMapping
from pathlib import Path

import structlog
from pydantic import ValidationError

from service.exits import BadConfiguration
from service.settings.base import CREDENTIALS_INSIDE, variable_name
from service.settings.catalogue import all_settings
from service.settings.common import CommonSettings
from service.settings.delivery import check_characters, cleaned
from service.settings.places import checked_path

SHARED_PREFIXES = ("ARTIFACTS_", "MODEL_")
OF_OTHERS_TOO = ("S3_", "NOTIFY_", "DIFF_", "TRACE_")
"""Prefixes of ours that other programs have as well: a variable is taken for a misspelt one only when it is nearly right."""
RENAMED = {
    "AWS_CONNECT_TIMEOUT": "S3_CONNECT_TIMEOUT",
    "AWS_READ_TIMEOUT": "S3_READ_TIMEOUT",
    "AWS_S3_ADDRESSING_STYLE": "S3_ADDRESSING_STYLE",
}
"""What some settings were called before, in the namespace of others."""
NEAR, VERY_NEAR = 0.6, 0.8
"""Similarity of two names from which one may be meant by the other; and from which it must be."""


SERVICE_LINK = re.compile(r".+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
ADDRESS_OF_SERVICE = re.compile(r"(tcp|udp|sctp)://.+")

log = structlog.get_logger(__name__)


def known_variables() -> set[str]:
    return {variable_name(settings, field) for settings in all_settings().values() for field in settings.model_fields}


def _own_prefixes() -> tuple[str, ...]:
    own = (settings.own_prefix() for settings in all_settings().values())
    return (*SHARED_PREFIXES, *OF_OTHERS_TOO, *(f"{prefix}_" for prefix in own if prefix))


def misspelt_variables(environment: Iterable[str]) -> dict[str, str | None]:
    """Variables of `environment` that are meant to be ours and are not → the nearest that is, if any is near.

    Whatever bears one of our prefixes is meant to be ours. Where a prefix is of others too, a name must be nearly right.
    """
    known, strict = known_variables(), tuple(prefix for prefix in _own_prefixes() if prefix not in OF_OTHERS_TOO)
    found = {}
    for name in sorted(environment):
        upper = name.upper()
        ours = upper.startswith(strict)
        if upper not in known and (ours or upper.startswith(OF_OTHERS_TOO)):
            near = difflib.get_close_matches(upper, known, n=1, cutoff=NEAR if ours else VERY_NEAR)
            if ours or near:
                found[name] = next(iter(near), None)
    return found


def _service_links(environment: Mapping[str, str]) -> list[str]:
    """Variables with our prefixes that Kubernetes sets for each service of the namespace, such as one that is named train."""
    return sorted(
        name
        for name, value in environment.items()
        if name.startswith(_own_prefixes())
        and (SERVICE_LINK.fullmatch(name) or (name.endswith("_PORT") and ADDRESS_OF_SERVICE.fullmatch(value)))
    )


def check_variables(environment: Mapping[str, str]) -> None:
    """Raises BadConfiguration when a variable is misspelt: a setting that silently does nothing costs a GPU hour."""
    if links := _service_links(environment):
        log.info(
            "service links of Kubernetes are ignored; `enableServiceLinks: false` leaves them out", variables=links
        )
    problems = [
        f"{name} is no setting" + (f", did you mean {near}?" if near else "")
        for name, near in misspelt_variables(environment.keys() - set(links)).items()
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
        shown = f" {message}" if problem["type"] == CREDENTIALS_INSIDE else f"={problem['input']!r}: {message}"
        problems.append(variable + shown)
    return "; ".join(problems)


def settle_outcome_file(environment: MutableMapping[str, str]) -> None:
    """Cleans OUTCOME_FILE in place: it is written to whatever else is wrong. One that is no path is taken out and refused."""
    if given := environment.pop("OUTCOME_FILE", ""):
        try:
            check_characters(file := cleaned(given))
            environment["OUTCOME_FILE"] = str(checked_path(Path(file)))
        except ValueError as error:
            raise BadConfiguration(f"OUTCOME_FILE={given!r}: {error}") from error
