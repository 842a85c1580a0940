"""Requests to stop: the signal sets a flag, and a job asks for it between two pieces of its work.

A handler that did more would interrupt a write in its middle. But where there is nothing to save, while libraries or models
are loaded, the process ends at once: the main thread may be busy there for minutes, and ask for nothing. Kubernetes sends
SIGTERM, and SIGKILL when the grace time is over; a person at a terminal sends SIGINT, and means at once by the second one.
"""

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from types import FrameType
from typing import TypeVar

from service.exits import Stopped

SIGNALS = (signal.SIGTERM, signal.SIGINT)
REASON = "told to stop; what is finished is stored, start the job again to go on"

POLL_SECONDS = 0.2

Item = TypeVar("Item")
StopCheck = Callable[[], None]
"""Called between two pieces of work; what it raises ends the whole."""

_end: Callable[[str], object] | None = None
_end_lock = threading.Lock()
_signalled: tuple[int, int] | None = None  # a pipe that brings the number of each signal
_signal_came = False
_requested_at: float | None = None
_other_source: Callable[[], bool] | None = None


def listen(end: Callable[[str], object] | None = None) -> None:
    """From now on the signals set the flag. To be called in the main thread, once a process.

    `end` ends the process for the reason that it gets; without it, `nothing_to_save` changes nothing. Signals that a
    launcher held back while this process was being started arrive now.
    """
    global _end, _requested_at, _signal_came
    _end, _requested_at, _signal_came = end, None, False
    _open_pipe()
    for number in SIGNALS:
        signal.signal(number, _remember)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _open_pipe() -> None:
    """Python's own handler waits until the main thread comes back from a library; what it writes to here comes at once."""
    global _signalled
    for end in _signalled or ():
        os.close(end)
    _signalled = os.pipe()
    for end in _signalled:
        os.set_blocking(end, False)
    signal.set_wakeup_fd(_signalled[1], warn_on_full_buffer=False)


@contextmanager
def nothing_to_save() -> Iterator[None]:
    """A block in which a request to stop ends the process at once, whatever the main thread is at; after it, by Stopped."""
    check()
    if _end is None or _signalled is None:
        yield
        check()
        return
    left = threading.Event()
    watcher = threading.Thread(target=copy_context().run, args=(_watch, _signalled[0], left), name="stop", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        left.set()
        watcher.join()  # for ever, if it is ending the process
    check()


def _watch(signalled: int, left: threading.Event) -> None:
    global _signal_came
    while not left.is_set():
        if select.select([signalled], [], [], POLL_SECONDS)[0]:
            with suppress(BlockingIOError):  # another block's watcher has it
                _signal_came = _signal_came or any(number in SIGNALS for number in os.read(signalled, 1024))
        if (_signal_came or requested()) and not left.is_set():
            end()
            return


def end() -> None:
    """Ends the process at once, where `listen` was given a way to."""
    with _end_lock:
        if _end is not None:
            _end(REASON)


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


def pause(seconds: float) -> None:
    """Sleeps for so long; raises Stopped as soon as the process is asked to stop."""
    end = time.monotonic() + seconds
    check()
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, POLL_SECONDS))
        check()


def interruptible(items: Iterable[Item]) -> Iterator[Item]:
    """Passes `items` on; raises Stopped between two of them."""
    for item in items:
        check()
        yield item


def never_stop() -> None:
    """A stop check that ends nothing."""
