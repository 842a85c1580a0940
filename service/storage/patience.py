"""Patience with a server that does not answer: asked again with growing pauses, told once, given up by a request to stop."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

import structlog
from tenacity import RetryCallState, Retrying, retry_if_exception

from service import stopping

log = structlog.get_logger(__name__)

Answer = TypeVar("Answer")
Pause = Callable[[RetryCallState], float]

LONGEST_PAUSE = 10
"""Seconds: so late at most is it noticed that the server is back."""
TOLD_AFTER = 3.0
"""Seconds: what passes sooner is no news."""


class Patience:
    """How often, and how long, one server is asked for the same thing. Used by many threads at once.

    server: what people call it, in the log. attempts: at least so many, in however short a time. seconds: at least for so
    long. pause: seconds before the next attempt; told_after: seconds without an answer after which the log says so, once.
    """

    def __init__(
        self,
        server: str,
        *,
        attempts: int,
        seconds: float,
        pause: Pause,
        told_after: float = TOLD_AFTER,
    ) -> None:
        self._server = server
        self._attempts = attempts
        self._seconds = seconds
        self._pause = pause
        self._told_after = told_after
        self._told_at: float | None = None
        self._lock = threading.Lock()

    def ask(self, action: Callable[[], Answer], passes: Callable[[BaseException], bool]) -> Answer:
        """What `action` returns, or raises in the end. It is repeated as long as `passes` is true of what it raises.

        Raises Stopped as soon as the process is asked to stop. Who asks after that is storing what is finished, and has
        as many attempts as ever, but no more time than they take.
        """
        stopping_already = stopping.requested()

        def enough(state: RetryCallState) -> bool:
            elapsed = state.seconds_since_start or 0.0
            return state.attempt_number >= self._attempts and (stopping_already or elapsed >= self._seconds)

        retrying = Retrying(
            retry=retry_if_exception(passes),
            stop=enough,
            wait=self._pause,
            sleep=time.sleep if stopping_already else stopping.pause,
            before_sleep=self._tell,
            reraise=True,
        )
        answer = retrying(action)
        if self._told_at is not None:
            self._tell_end()
        return answer

    def _tell(self, state: RetryCallState) -> None:
        if (state.seconds_since_start or 0.0) < self._told_after:
            return
        with self._lock:
            if self._told_at is not None:
                return
            self._told_at = state.start_time
        reason = " ".join(str(state.outcome.exception() if state.outcome else "").split())
        log.warning(
            f"{self._server} does not answer, it is asked again", for_seconds=self._seconds, reason=reason[:300]
        )

    def _tell_end(self) -> None:
        with self._lock:
            began, self._told_at = self._told_at, None
        if began is not None:
            log.info(f"{self._server} answers again", after_seconds=round(time.monotonic() - began, 1))
