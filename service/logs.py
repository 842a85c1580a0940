"""Events: JSON lines in a pod or a pipe, readable lines and progress bars on a terminal."""

import logging
import os
import sys
from collections.abc import Generator, Iterable
from typing import Any, Literal, TypeVar

import structlog
from rich.console import Console
from rich.progress import track
from structlog.typing import EventDict, WrappedLogger

from service.redaction import redacted, redacted_values, secrets_of

LogFormat = Literal["auto", "json", "console"]
Item = TypeVar("Item")

REPORTS_PER_LOOP = 10
_format: LogFormat = "auto"


def configure_logs(log_format: LogFormat = "auto", *, quiet: bool = False, **context: object) -> None:
    """Sends every event to standard error, with `context` (run id, job) in each of them; `quiet`: from warnings on."""
    global _format
    _format = log_format
    # The values of variables in a stack trace would be secrets sooner or later.
    traceback = structlog.dev.RichTracebackFormatter(show_locals=False)
    final = (
        structlog.dev.ConsoleRenderer(exception_formatter=traceback)
        if on_terminal(log_format)
        else structlog.processors.JSONRenderer()
    )
    secrets = secrets_of(os.environ)

    def starred_values(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        return {name: redacted_values(value, secrets) for name, value in event.items()}

    def starred_text(_: WrappedLogger, __: str, rendered: Any) -> str:
        return redacted(str(rendered), secrets)

    exceptions = [] if on_terminal(log_format) else [structlog.processors.format_exc_info]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            *exceptions,
            # Before, as a secret looks otherwise between the quotes of JSON; and after, as values may hide one in themselves.
            starred_values,
            final,
            starred_text,
        ],
        # Looked up at every event: while a progress bar is shown, standard error is the bar's, which makes room for the line.
        wrapper_class=structlog.make_filtering_bound_logger("warning" if quiet else "notset"),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
    # What a library warns of is an event too, and as free of secrets; Python would write it out as it is.
    logging.lastResort = _Events(logging.WARNING)
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**context)


class _Events(logging.Handler):
    """Records of Python's own logging, as events."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger(record.name).warning("library warns", library=record.name, message=record.getMessage())


def on_terminal(log_format: LogFormat = "auto") -> bool:
    return log_format == "console" or (log_format == "auto" and sys.stderr.isatty())


def progress_bar(items: Iterable[Item], what: str, total: int) -> Generator[Item, None, None]:
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
