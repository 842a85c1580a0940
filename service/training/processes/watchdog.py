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
from service.logs import End
from service.outcome import tell_outcome

log = structlog.get_logger(__name__)

LOOKS = 20
"""How often it looks within the time that it allows."""
LAST_WORD = 5.0
"""Seconds that it takes at most to say why it ends the process."""


class Watchdog:
    """Ends the process with STALLED when nothing was heard for `seconds`; 0 waits for ever.

    At once, and not by an exception: the main thread may hang in a device or in a process group, where none reaches it.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._heard_at = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=copy_context().run, args=(self._watch,), name="watchdog", daemon=True)

    def heard(self) -> None:
        """Some piece of work is done. Costs nothing."""
        self._heard_at = time.monotonic()

    def __enter__(self) -> "Watchdog":
        self.heard()
        if self._seconds:
            self._thread.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(self._seconds / LOOKS):
            silence = time.monotonic() - self._heard_at
            if silence > self._seconds:
                self._bark(silence)

    def _bark(self, silence: float) -> None:
        # The stacks first: they need no lock that the thread which hangs may hold.
        faulthandler.dump_traceback(sys.__stderr__ or 2, all_threads=True)
        # What follows may need one, so it is not waited for without end.
        last_word = threading.Thread(target=copy_context().run, args=(self._tell, silence), daemon=True)
        last_word.start()
        last_word.join(LAST_WORD)
        os._exit(ExitCode.STALLED)

    def _tell(self, silence: float) -> None:
        error = (
            f"no step was finished for {silence:.0f} s, more than TRAIN_STALL_SECONDS={self._seconds:g}; the stacks above "
            "say where it hangs; start the job again, it goes on from its last checkpoint"
        )
        log.error("failed", error=error, exit_code=int(ExitCode.STALLED))
        tell_outcome("train", End(ExitCode.STALLED, error))
