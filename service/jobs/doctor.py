"""`sdlora doctor`: what would fail, before a GPU hour is spent on it."""

import os
from collections.abc import Iterator

import structlog
from pydantic import ValidationError
from pydantic_settings import CliApp
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from service import stopping
from service.checks.configuration import check_settings
from service.checks.findings import Finding, Status, first_failure, found
from service.checks.machine import check_disk, check_gpu, check_shared_memory
from service.checks.models import check_model
from service.checks.storage import storage_checks
from service.exits import BadConfiguration, ChecksFailed
from service.logs import configure_logs, on_terminal
from service.redaction import redacted, secrets_of
from service.settings.catalogue import SETTINGS, explain_validation
from service.settings.doctor import DoctorSettings
from service.settings.models import ModelSettings

COLOURS = {Status.OK: "green", Status.WARNING: "yellow", Status.FAILURE: "bold red"}

log = structlog.get_logger(__name__)


def doctor(flags: list[str]) -> str:
    """Tells a finding for each check, then how many failed.

    Raises ChecksFailed with the exit code of the first failure: the one with which a job would end.
    """
    settings = read_what_can_be_read(flags)
    configure_logs(settings.log_format, job="doctor", run_id=settings.run_id)
    if on_terminal(settings.log_format):
        with Console(stderr=True).status("looking at everything once …"):
            findings = list(all_checks(settings))
        show(findings)
    else:
        findings = []
        for finding in all_checks(settings):
            tell(finding)
            findings.append(finding)
    failed = [finding for finding in findings if finding.status == Status.FAILURE]
    if (first := first_failure(findings)) is not None:
        raise ChecksFailed(
            f"{len(failed)} of {len(findings)} checks failed: {', '.join(finding.check for finding in failed)}; the first: "
            f"{first.fact}; {first.advice}",
            first.exit_code,
        )
    warnings = sum(finding.status == Status.WARNING for finding in findings)
    log.info("fit", checks=len(findings), warnings=warnings)
    return f"{len(findings)} checks, {warnings} warnings"


def all_checks(settings: DoctorSettings) -> Iterator[Finding]:
    """Every check in its turn, the cheap ones first."""
    yield from check_settings([*settings.jobs, "doctor"], os.environ)
    yield found("disk", lambda: check_disk(settings.work_dir, settings.min_disk_gib))
    yield found("shared memory", check_shared_memory)
    yield from storage_checks(settings.artifacts_uri)
    for field in dict.fromkeys(field for job in settings.jobs for field in models_of(job)):
        stopping.check()
        yield found(f"model {field.removeprefix('model_')}", lambda field=field: check_model(settings, field))  # type: ignore[misc]
    stopping.check()
    yield found("GPU", lambda: check_gpu(settings.require_gpu))


def models_of(job: str) -> tuple[str, ...]:
    """The fields of the models that a job will load; all that it may load where its settings are refused."""
    settings = SETTINGS[job]
    assert issubclass(settings, ModelSettings)
    try:
        return settings().models()
    except ValidationError:
        return settings.known_models()


def read_what_can_be_read(flags: list[str]) -> DoctorSettings:
    """The settings of the environment, with the default in place of each that is refused: `check_settings` tells of them."""
    try:
        return CliApp.run(DoctorSettings, cli_args=flags)
    except ValidationError as error:
        refused = {str(problem["loc"][0]) for problem in error.errors() if problem["loc"]}
        by_alias = {str(field.validation_alias): field for field in DoctorSettings.model_fields.values()}
        if flags or not refused or not refused <= by_alias.keys():
            raise BadConfiguration(explain_validation(DoctorSettings, error)) from error
        return DoctorSettings.model_validate({alias: by_alias[alias].default for alias in refused})
    except SystemExit as end:
        if end.code:
            raise BadConfiguration(f"the flags {' '.join(flags)} are not understood; see --help") from end
        raise


def tell(finding: Finding) -> None:
    say = {Status.OK: log.info, Status.WARNING: log.warning, Status.FAILURE: log.error}[finding.status]
    told = {"advice": finding.advice, "code": int(finding.exit_code)} if finding.status == Status.FAILURE else {}
    if finding.status == Status.WARNING:
        told = {"advice": finding.advice}
    say("check", check=finding.check, status=str(finding.status), fact=finding.fact, **told)


def show(findings: list[Finding]) -> None:
    """A table on standard output."""
    secrets = secrets_of(os.environ)
    table = Table(title="sdlora doctor", title_justify="left")
    for column in ("check", "", "what was found", "what to do"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        status = f"[{COLOURS[finding.status]}]{finding.status}[/]"
        table.add_row(
            finding.check, status, *(escape(redacted(text, secrets)) for text in (finding.fact, finding.advice))
        )
    Console().print(table)
