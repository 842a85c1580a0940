"""Events: JSON lines in a pod or a pipe, readable lines and progress bars on a terminal."""

import sys
from collections.abc import Generator, Iterable
from typing import Literal, TypeVar

import structlog
from rich.console import Console
from rich.progress import track

LogFormat = Literal["auto", "json", "console"]
Item = TypeVar("Item")

REPORTS_PER_LOOP = 10
_format: LogFormat = "auto"


def configure_logs(log_format: LogFormat = "auto", **context: object) -> None:
    """Sends every event to standard error, with `context` (run id, job) in each of them."""
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
