"""Requests to stop: the signal sets a flag, and a job asks for it between two pieces of its work.

A handler that did more would interrupt a write in its middle. Kubernetes sends SIGTERM, and SIGKILL when the grace time
is over; a person at a terminal sends SIGINT, and means at once by the second one.
"""

import signal
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import TypeVar

from service.exits import Stopped

SIGNALS = (signal.SIGTERM, signal.SIGINT)
REASON = "told to stop; what is finished is stored, start the job again to go on"

Item = TypeVar("Item")

_requested_at: float | None = None
_other_source: Callable[[], bool] | None = None


def listen() -> None:
    """From now on the signals set the flag. To be called in the main thread, once a process.

    Signals that a launcher held back while this process was being started arrive now.
    """
    global _requested_at
    _requested_at = None
    for number in SIGNALS:
        signal.signal(number, _remember)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def listen_to(source: Callable[[], bool]) -> None:
    """From now on `source` counts like a signal. It is asked often, so it must answer at once."""
    global _other_source
    _other_source = source


def restore_handlers() -> None:
    """From now on the signals end the process, as in any other: for one that has nothing left to save."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def _remember(number: int, _: FrameType | None) -> None:
    global _requested_at
    if _requested_at is None:
        _requested_at = time.monotonic()
    elif number == signal.SIGINT:
        raise KeyboardInterrupt


def requested() -> bool:
    global _requested_at
    if _requested_at is None and _other_source is not None and _other_source():
        _requested_at = time.monotonic()
    return _requested_at is not None


def seconds_since() -> float:
    """Seconds since the process was asked to stop; 0 when it was not."""
    return 0.0 if _requested_at is None else time.monotonic() - _requested_at


def check() -> None:
    """Raises Stopped when the process was asked to stop: to be called where nothing is half done."""
    if requested():
        raise Stopped(REASON)


def interruptible(items: Iterable[Item]) -> Iterator[Item]:
    """Passes `items` on; raises Stopped between two of them."""
    for item in items:
        check()
        yield item
