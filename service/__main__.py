"""The command line: `sdlora JOB`, `python -m service JOB`, `docker run … IMAGE JOB`."""

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from service import stopping
from service.exits import ExitCode
from service.logs import configure_logs, ended
from service.outcome import tell_outcome

# Job → (module below service.jobs, one line of help). The modules are imported only when they run: --help stays instant.
JOBS = {
    "data-prep": ("data_prep", "images in, a captioned and published data set out"),
    "train": ("train", "a data set in, checkpoints and a LoRA out"),
    "infer": ("infer", "prompts in, images of the base model and of the LoRA out"),
    "evaluate": ("evaluate", "LoRA against base on held-out images: promote, hold or reject"),
    "demo": ("demo", "the four above on the miniature, on a CPU, with no network"),
    "doctor": ("doctor", "what would fail, before a GPU hour is spent on it"),
    "prune": ("prune", "old checkpoints and leftovers out; tells first what it would delete"),
    "config": ("config", "the effective settings; --check fails on an unknown or bad one"),
}
# These look for faults in the settings, and must not fall over the first.
READ_THEIR_OWN = ("config", "doctor")
USAGE = "usage: sdlora JOB [--help] [--flag VALUE …]\n\njobs:\n" + "\n".join(
    f"  {name:<10} {summary}" for name, (_, summary) in JOBS.items()
)
# What the libraries say by themselves is neither an event nor in JSON; a user's own choice stays.
QUIET_LIBRARIES = {
    "DIFFUSERS_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one job and exits with the code that `service.exits` gives to its end."""
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(USAGE + "\n")
        return ExitCode.DONE if arguments else ExitCode.BAD_CONFIGURATION
    job, *flags = arguments
    for name, value in QUIET_LIBRARIES.items():
        os.environ.setdefault(name, value)
    configure_logs(job=job)
    stopping.listen()
    end = ended(lambda: start(job, flags))
    tell_outcome(job, end)
    if end.at_once:
        leave(end.code)
    return end.code


def start(job: str, flags: list[str]) -> object:
    """What the job returns: the path of what it made, where it made something."""
    from service.exits import BadConfiguration
    from service.settings.catalogue import SETTINGS, check_variables

    if job not in JOBS:
        raise BadConfiguration(f"{job!r} is no job; there are {', '.join(JOBS)}")
    module = JOBS[job][0]
    if job in READ_THEIR_OWN:
        return getattr(import_module(f"service.jobs.{module}"), module)(flags)
    check_variables(os.environ)
    settings = read_settings(SETTINGS[job], flags)
    if settings.outcome_file is not None:
        os.environ["OUTCOME_FILE"] = str(settings.outcome_file)  # a flag counts as much as the variable
    configure_logs(settings.log_format, job=job, run_id=settings.run_id)
    return getattr(import_module(f"service.jobs.{module}"), module)(settings)


def leave(code: ExitCode) -> None:
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

    from service.exits import BadConfiguration
    from service.settings.catalogue import explain_validation

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
