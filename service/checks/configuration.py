"""The settings of the jobs, all of them: what one job does not read, the next one may stumble over."""

from collections.abc import Iterable, Mapping

from pydantic import ValidationError

from service.checks.result import CheckResult, failure, ok, result_of
from service.exits import BadConfiguration
from service.notification import prepare
from service.settings.catalogue import all_settings
from service.settings.common import CommonSettings
from service.settings.delivery import check_credentials
from service.settings.variables import check_variables, explain_validation


def check_settings(jobs: Iterable[str], environment: Mapping[str, str]) -> Iterable[CheckResult]:
    """A result for the names of the variables, one for credentials, and one a job for the values."""
    try:
        check_variables(environment)
        yield ok("variables", "none is misspelt")
    except BadConfiguration as error:
        yield failure(
            "variables",
            BadConfiguration(f"{error}; correct the name: as it is, the variable does nothing"),
        )
    yield result_of("credentials", lambda: _check_credentials(environment))
    for job in jobs:
        settings = all_settings()[job]
        try:
            settings()
            yield ok(f"settings {job}", "all values are accepted")
        except ValidationError as error:
            problems = explain_validation(settings, error)
            yield failure(
                f"settings {job}", BadConfiguration(f"{problems}; `sdlora {job} --help` explains the variable")
            )


def check_notification(settings: CommonSettings) -> CheckResult:
    """Whether what is to be told could be signed; nobody is told anything."""
    prepare(settings.artifacts_uri)
    how = "signed" if settings.notify_secret_file else "not signed, as there is no NOTIFY_SECRET_FILE"
    return ok("notification", f"the end of each job is told to {settings.public()['notify_url']}, {how}")


def _check_credentials(environment: Mapping[str, str]) -> CheckResult:
    check_credentials(environment)
    return ok("credentials", "what is set has none but the usual characters")
