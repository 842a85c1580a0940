"""The command line: `sdlora JOB`, `python -m service JOB`, `docker run … IMAGE JOB`."""

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from service import stopping
from service.cpus import settle_threads
from service.exits import BadConfiguration, ExitCode
from service.settings.catalogue import JOBS, Job

USAGE = "usage: sdlora JOB [--help] [--flag VALUE …]\n\njobs:\n" + "\n".join(
    f"  {job.name:<10} {job.help}" for job in JOBS.values()
)
# What the libraries say by themselves is neither an event nor in JSON; a user's own choice stays.
QUIET_LIBRARIES = {
    "DIFFUSERS_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one job and exits with the code that `service.exits` gives to its end."""
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(USAGE + "\n")
        return ExitCode.DONE if arguments else ExitCode.BAD_CONFIGURATION
    job, *flags = arguments
    stopping.listen(lambda reason: end_stopped(job, reason, _report))
    # What follows takes half a second to import, for which whoever asks for help need not wait.
    from service.logs import configure_logs
    from service.outcome import end_stopped, ended

    for name, value in QUIET_LIBRARIES.items():
        os.environ.setdefault(name, value)
    settle_threads(os.environ)
    configure_logs(job=job)
    end = ended(lambda: _start(job, flags))
    _report(job, end)
    if end.at_once:
        _leave(end.code)
    return end.code


def _report(job: str, end: Any) -> None:
    """Leaves the outcome of the job where somebody looks for it, and tells it where somebody wants to be told."""
    from service.notification import notify_end
    from service.outcome import report_outcome

    report_outcome(job, end)
    if job in JOBS and not JOBS[job].answers:
        notify_end(job, end)


def _start(name: str, flags: list[str]) -> object:
    """What the job returns: the path of what it made, where it made something."""
    from service.logs import configure_logs
    from service.notification import prepare
    from service.outcome import begin
    from service.settings.common import export
    from service.settings.delivery import check_credentials, clean_foreign
    from service.settings.variables import check_variables, settle_outcome_file

    job = JOBS.get(name)
    if job is None:
        raise BadConfiguration(f"{name!r} is no job; there are {', '.join(JOBS)}")
    settle_outcome_file(os.environ)
    clean_foreign(os.environ)
    if job.reads_flags:
        begin(name, os.environ.get("RUN_ID", ""))
        return _function_of(job)(flags)
    check_credentials(os.environ)
    check_variables(os.environ)
    settings = read_settings(job.settings_class, flags)
    export(settings)
    configure_logs(settings.log_format, level=settings.log_level, job=name, run_id=settings.run_id)
    begin(name, settings.run_id)
    prepare(settings.artifacts_uri)
    with stopping.nothing_to_save():
        if check := job.input_check:
            check(settings)
    return _function_of(job)(settings)


def _function_of(job: Job) -> Any:
    with stopping.nothing_to_save():  # its libraries take seconds to import
        return job.function


def _leave(code: ExitCode) -> None:
    """Ends the process here and now, without waiting for threads that wait for a server, and deaf to further signals."""
    for number in stopping.SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def read_settings(settings: type[Any], flags: list[str]) -> Any:
    """Environment and flags → settings; BadConfiguration names the variables that are wrong."""
    from pydantic import ValidationError
    from pydantic_settings import CliApp

    from service.settings.variables import explain_validation

    try:
        return CliApp.run(settings, cli_args=flags)
    except ValidationError as error:
        raise BadConfiguration(explain_validation(settings, error)) from error
    except SystemExit as end:
        if end.code:
            raise BadConfiguration(f"the flags {' '.join(flags)} are not understood; see --help") from end
        raise


if __name__ == "__main__":
    main()
