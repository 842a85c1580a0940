"""`sdlora config`: the effective settings of every job."""

import json
import os
import sys

from pydantic import ValidationError

from service.exits import BadConfiguration
from service.redaction import redacted_values, secrets_of
from service.settings.base import variable_name
from service.settings.catalogue import all_settings
from service.settings.delivery import check_credentials
from service.settings.variables import check_variables, explain_validation


def config(flags: list[str]) -> None:
    """Writes every variable with its value to standard output, secrets hidden; `--check` only looks for what is wrong.

    Raises BadConfiguration when a variable is misspelt or a value is refused.
    """
    if flags not in ([], ["--check"]):
        raise BadConfiguration(f"config takes --check or nothing, not {' '.join(flags)}")
    effective: dict[str, object] = {}
    for settings in all_settings().values():
        try:
            values = settings().public()
        except ValidationError as error:
            raise BadConfiguration(explain_validation(settings, error)) from error
        effective |= {variable_name(settings, field): value for field, value in values.items()}
    check_credentials(os.environ)
    check_variables(os.environ)
    if not flags:
        shown = redacted_values(dict(sorted(effective.items())), secrets_of(os.environ))
        sys.stdout.write(json.dumps(shown, indent=2) + "\n")
