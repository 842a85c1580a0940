"""`sdlora doctor`: what would fail, before a GPU hour is spent on it."""

import os
from collections.abc import Iterator, Set
from functools import partial

import structlog
from pydantic import ValidationError
from pydantic_settings import CliApp
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from service import stopping
from service.checks.configuration import check_notification, check_settings
from service.checks.machine import check_disk, check_gpu, check_shared_memory
from service.checks.models import check_model, models_of
from service.checks.registry import check_registry
from service.checks.result import CheckResult, CheckStatus, first_failure, result_of
from service.checks.storage import storage_checks
from service.exits import BadConfiguration, ChecksFailed
from service.logs import configure_logs, on_terminal
from service.outcome import add_facts
from service.redaction import redacted, secrets_of
from service.settings.doctor import DoctorSettings
from service.settings.variables import explain_validation

COLOURS = {CheckStatus.OK: "green", CheckStatus.WARNING: "yellow", CheckStatus.FAILURE: "bold red"}

log = structlog.get_logger(__name__)


def doctor(flags: list[str]) -> None:
    """Reports a result for each check, then how many failed.

    Raises ChecksFailed with the exit code of the first failure: the one with which a job would end.
    """
    settings, refused = _read_what_can_be_read(flags)
    configure_logs(settings.log_format, level=settings.log_level, job="doctor", run_id=settings.run_id)
    if on_terminal(settings.log_format):
        with Console(stderr=True).status("looking at everything once …"):
            results = list(_all_checks(settings, refused))
        _print_table(results)
    else:
        results = []
        for result in _all_checks(settings, refused):
            _log_result(result)
            results.append(result)
    failed = [result for result in results if result.status == CheckStatus.FAILURE]
    warnings = sum(result.status == CheckStatus.WARNING for result in results)
    add_facts(checks=len(results), failures=len(failed), warnings=warnings)
    if (first := first_failure(results)) is not None:
        raise ChecksFailed(
            f"{len(failed)} of {len(results)} checks failed: {', '.join(result.check for result in failed)}; the first: "
            f"{first.fact}; {first.advice}",
            first.exit_code,
        )
    log.info("fit", checks=len(results), warnings=warnings)


def _all_checks(settings: DoctorSettings, refused: Set[str]) -> Iterator[CheckResult]:
    """Every check in its turn, the cheap ones first; none of what a refused setting names."""
    yield from check_settings([*settings.jobs, "doctor"], os.environ)
    if settings.notify_url:
        yield result_of("notification", lambda: check_notification(settings))
    if "work_dir" not in refused:
        yield result_of("disk", lambda: check_disk(settings.work_dir, settings.min_disk_gib))
    yield result_of("shared memory", check_shared_memory)
    if "artifacts_uri" not in refused:
        yield from storage_checks(settings.artifacts_uri)
        if "retrain" in settings.jobs:
            yield result_of("registry", lambda: check_registry(settings.artifacts_uri))
    for field in dict.fromkeys(field for job in settings.jobs for field in models_of(job)):
        stopping.check()
        if field not in refused:
            yield result_of(f"model {field.removeprefix('model_')}", partial(check_model, settings, field))
    stopping.check()
    yield result_of("GPU", lambda: check_gpu(settings.require_gpu))


def _read_what_can_be_read(flags: list[str]) -> tuple[DoctorSettings, set[str]]:
    """The settings of the environment, with the default in place of each that is refused, and those by their variables.

    `check_settings` says what is wrong with them.
    """
    try:
        return CliApp.run(DoctorSettings, cli_args=flags), set()
    except ValidationError as error:
        refused = {str(problem["loc"][0]) for problem in error.errors() if problem["loc"]}
        by_alias = {str(field.validation_alias): field for field in DoctorSettings.model_fields.values()}
        if flags or not refused or not refused <= by_alias.keys():
            raise BadConfiguration(explain_validation(DoctorSettings, error)) from error
        return DoctorSettings.model_validate({alias: by_alias[alias].default for alias in refused}), refused
    except SystemExit as end:
        if end.code:
            raise BadConfiguration(f"the flags {' '.join(flags)} are not understood; see --help") from end
        raise


def _log_result(result: CheckResult) -> None:
    write = {CheckStatus.OK: log.info, CheckStatus.WARNING: log.warning, CheckStatus.FAILURE: log.error}[result.status]
    more: dict[str, str | int] = {"advice": result.advice} if result.advice else {}
    if result.status == CheckStatus.FAILURE:
        more |= {"code": int(result.exit_code)}
    write("check", check=result.check, status=str(result.status), fact=result.fact, **more)


def _print_table(results: list[CheckResult]) -> None:
    """A table on standard output."""
    secrets = secrets_of(os.environ)
    table = Table(title="sdlora doctor", title_justify="left")
    for column in ("check", "", "what was found", "what to do"):
        table.add_column(column, overflow="fold")
    for result in results:
        status = f"[{COLOURS[result.status]}]{result.status}[/]"
        table.add_row(result.check, status, *(escape(redacted(text, secrets)) for text in (result.fact, result.advice)))
    Console().print(table)
