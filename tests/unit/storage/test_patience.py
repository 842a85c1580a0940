"""A server that does not answer is asked again, for as long and as often as was said, and told of once."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from structlog.testing import capture_logs
from tenacity import wait_fixed, wait_none

from service import stopping
from service.exits import Stopped
from service.storage.patience import Patience

AWAY = "the store does not answer, it is asked again"
BACK = "the store answers again"


class Server:
    """Fails so many times, then answers."""

    def __init__(self, failures: int, error: type[Exception] = ConnectionError) -> None:
        self.failures, self.error = failures, error
        self.asked = 0
        self.lock = threading.Lock()

    def answer(self) -> str:
        with self.lock:
            self.asked += 1
            if self.asked <= self.failures:
                raise self.error("no")
        return "answer"


@pytest.fixture
def tell() -> Iterator[Callable[[], None]]:
    """Asks the process to stop, as a signal does."""
    told = threading.Event()
    stopping.listen_to(told.is_set)
    yield told.set
    stopping.listen_to(lambda: False)
    stopping._requested_at = None


def is_away(error: BaseException) -> bool:
    return isinstance(error, ConnectionError)


def patience(attempts: int, seconds: float, pause: float = 0, told_after: float = 0) -> Patience:
    waiting = wait_fixed(pause) if pause else wait_none()
    return Patience("the store", attempts=attempts, seconds=seconds, pause=waiting, told_after=told_after)


def test_without_time_the_attempts_count_and_with_time_the_time() -> None:
    server = Server(1000)
    with pytest.raises(ConnectionError):
        patience(5, 0).ask(server.answer, is_away)
    assert server.asked == 5
    server = Server(20)
    assert patience(5, 60).ask(server.answer, is_away) == "answer"
    assert server.asked == 21
    began = time.monotonic()
    with pytest.raises(ConnectionError):
        patience(1, 0.3, pause=0.05).ask(Server(1000).answer, is_away)
    assert time.monotonic() - began >= 0.3


def test_what_time_does_not_mend_is_raised_at_once() -> None:
    server = Server(1, ValueError)
    with pytest.raises(ValueError, match="no"):
        patience(5, 60).ask(server.answer, is_away)
    assert server.asked == 1


def test_an_outage_is_one_line_however_many_ask_and_so_is_its_end() -> None:
    server, asking = Server(100), patience(1, 60, pause=0.01)
    with capture_logs() as logs, ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda _: asking.ask(server.answer, is_away), range(8))) == ["answer"] * 8
        assert asking.ask(server.answer, is_away) == "answer"
    assert [entry["event"] for entry in logs] == [AWAY, BACK]


def test_what_passes_soon_is_not_told() -> None:
    with capture_logs() as logs:
        patience(1, 60, told_after=30).ask(Server(3).answer, is_away)
    assert logs == []


def test_a_request_to_stop_ends_the_pause(tell: Callable[[], None]) -> None:
    threading.Timer(0.2, tell).start()
    began = time.monotonic()
    with pytest.raises(Stopped):
        patience(5, 600, pause=300).ask(Server(1000).answer, is_away)
    assert time.monotonic() - began < 2


def test_who_stores_what_is_finished_after_a_request_to_stop_has_the_attempts_and_no_more(
    tell: Callable[[], None],
) -> None:
    tell()
    assert patience(5, 600).ask(Server(4).answer, is_away) == "answer"
    server = Server(1000)
    with pytest.raises(ConnectionError):
        patience(5, 600).ask(server.answer, is_away)
    assert server.asked == 5
