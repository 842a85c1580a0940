"""Events: JSON lines in a pod or a pipe, readable lines and progress bars on a terminal."""

import sys
from collections.abc import Callable, Generator, Iterable
from typing import Literal, TypeVar

import structlog
from rich.console import Console
from rich.progress import track

from service.exits import ExitCode, judge

LogFormat = Literal["auto", "json", "console"]
Item = TypeVar("Item")

REPORTS_PER_LOOP = 10
_format: LogFormat = "auto"


def configure_logs(log_format: LogFormat = "auto", *, quiet: bool = False, **context: object) -> None:
    """Sends every event to standard error, with `context` (run id, job) in each of them; `quiet`: from warnings on."""
    global _format
    _format = log_format
    final = structlog.dev.ConsoleRenderer() if on_terminal(log_format) else structlog.processors.JSONRenderer()
    exceptions = [] if on_terminal(log_format) else [structlog.processors.format_exc_info]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            *exceptions,
            final,
        ],
        # Looked up at every event: while a progress bar is shown, standard error is the bar's, which makes room for the line.
        wrapper_class=structlog.make_filtering_bound_logger("warning" if quiet else "notset"),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**context)


def on_terminal(log_format: LogFormat = "auto") -> bool:
    return log_format == "console" or (log_format == "auto" and sys.stderr.isatty())


def progress(items: Iterable[Item], what: str, total: int) -> Generator[Item, None, None]:
    """Passes `items` on with a progress bar on a terminal, and with some ten events a loop anywhere else."""
    if on_terminal(_format):
        yield from track(items, description=what, total=total, console=Console(stderr=True))
        return
    log = structlog.get_logger(__name__)
    every = max(1, total // REPORTS_PER_LOOP)
    for done, item in enumerate(items, start=1):
        yield item
        if done % every == 0 or done == total:
            log.info("progress", what=what, done=done, total=total)


def guarded(action: Callable[[], object]) -> ExitCode:
    """Runs a job, or a process of one; whatever ends it becomes one line and an exit code, a bug a stack trace as well."""
    try:
        action()
    except Exception as error:  # noqa: BLE001 - the one place where every failure becomes an exit code
        code, message = judge(error)
        log = structlog.get_logger(__name__)
        log.error("failed", error=message, exit_code=int(code), **({"exc_info": True} if code == ExitCode.BUG else {}))
        return code
    return ExitCode.DONE
