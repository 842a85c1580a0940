"""A training that no longer gets on: its stacks are shown, and it ends, so that somebody starts it again."""

import faulthandler
import os
import sys
import threading
import time
from contextvars import copy_context
from types import TracebackType

import structlog

from service.exits import ExitCode
from service.notification import notify_end
from service.outcome import End, report_outcome

log = structlog.get_logger(__name__)

CHECKS = 20
"""How often it checks within the time that it allows."""
REPORT_TIMEOUT = 5.0
"""Seconds that it takes at most to say why it ends the process."""


class Watchdog:
    """Ends the process with STALLED when no heartbeat came for `seconds`; 0 waits for ever.

    At once, and not by an exception: the main thread may hang in a device or in a process group, where none reaches it.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last_heartbeat = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=copy_context().run, args=(self._watch,), name="watchdog", daemon=True)

    def heartbeat(self) -> None:
        """Some piece of work is done. Costs nothing."""
        self._last_heartbeat = time.monotonic()

    def __enter__(self) -> "Watchdog":
        self.heartbeat()
        if self._seconds:
            self._thread.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(self._seconds / CHECKS):
            silence = time.monotonic() - self._last_heartbeat
            if silence > self._seconds:
                self._end_process(silence)

    def _end_process(self, silence: float) -> None:
        # The stacks first: they need no lock that the thread which hangs may hold.
        faulthandler.dump_traceback(sys.__stderr__ or 2, all_threads=True)
        # What follows may need one, so it is not waited for without end.
        report = threading.Thread(target=copy_context().run, args=(self._report, silence), daemon=True)
        report.start()
        report.join(REPORT_TIMEOUT)
        os._exit(ExitCode.STALLED)

    def _report(self, silence: float) -> None:
        error = (
            f"no step was finished for {silence:.0f} s, more than TRAIN_STALL_SECONDS={self._seconds:g}; the stacks above "
            "say where it hangs; start the job again, it goes on from its last checkpoint"
        )
        log.error("failed", error=error, exit_code=int(ExitCode.STALLED))
        end = End(ExitCode.STALLED, error)
        report_outcome("train", end)
        notify_end("train", end)
