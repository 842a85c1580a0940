"""Events: JSON lines in a pod or a pipe, readable lines and progress bars on a terminal."""

import logging
import os
import sys
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, Literal, TypeVar

import structlog
from rich.console import Console
from rich.progress import track
from structlog.typing import EventDict, WrappedLogger

from service.outcome import note_progress
from service.redaction import redacted, redacted_values, secrets_of

LogFormat = Literal["auto", "json", "console"]
LogLevel = Literal["debug", "info", "warning", "error"]
Item = TypeVar("Item")

REPORTS = 10
"""Lines at most of a loop, where it is no terminal: more of them would be all that is seen of a container that was killed."""
QUIET_SECONDS = 2.0
"""Until then a loop tells of itself only with LOG_LEVEL=debug: of one that is over by then, lines would bury what matters."""

_format: LogFormat = "auto"


def configure_logs(log_format: LogFormat = "auto", *, level: LogLevel = "info", **context: object) -> None:
    """Sends the events from `level` on to standard error, with `context` (run id, job) in each of them."""
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
        wrapper_class=structlog.make_filtering_bound_logger(level),
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


def no_facts() -> Mapping[str, object]:
    """Of a loop of which there is nothing to tell but how far it is."""
    return {}


def progress_bar(
    items: Iterable[Item], what: str, total: int, facts: Callable[[], Mapping[str, object]] = no_facts
) -> Generator[Item, None, None]:
    """Passes `items` on with a progress bar on a terminal; anywhere else with an event and a note for each tenth of them.

    The events of the first QUIET_SECONDS have the level debug.
    `facts`: what else to tell at each tenth.
    """
    if on_terminal(_format):
        yield from track(items, description=what, total=total, console=Console(stderr=True))
        return
    log, began = structlog.get_logger(__name__), time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        if is_reported(done, total):
            note_progress(what, done, total)
            tell = log.info if time.monotonic() - began >= QUIET_SECONDS else log.debug
            tell("progress", what=what, done=done, total=total, **facts())


def is_reported(done: int, total: int) -> bool:
    """Whether another tenth of `total` is reached with the last of the `done`."""
    return REPORTS * done // total > REPORTS * (done - 1) // total
