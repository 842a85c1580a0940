"""The flag: set by the signals or by a launcher, asked for between two pieces of work."""

import signal
from collections.abc import Iterator

import pytest

from service import stopping
from service.exits import ExitCode, Stopped, judge


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """The process's own handlers are back afterwards, and nobody is told anything."""
    before = {number: signal.getsignal(number) for number in stopping.SIGNALS}
    stopping.listen()
    yield
    stopping.listen()
    stopping.listen_to(lambda: False)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", stopping.SIGNALS)
def test_a_signal_sets_the_flag_and_interrupts_nothing(number: signal.Signals) -> None:
    assert not stopping.requested()
    stopping.check()
    signal.raise_signal(number)
    assert stopping.requested()
    assert stopping.seconds_since() >= 0
    with pytest.raises(Stopped) as told:
        stopping.check()
    assert judge(told.value)[0] == ExitCode.STOPPED


def test_the_second_interrupt_of_an_impatient_person_ends_it_at_once() -> None:
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_second_sigterm_changes_nothing() -> None:
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    assert stopping.requested()


def test_a_signal_that_was_held_back_while_the_process_was_started_is_heard() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, stopping.SIGNALS)
    signal.raise_signal(signal.SIGTERM)
    assert not stopping.requested()
    stopping.listen()
    assert stopping.requested()


def test_what_a_launcher_says_counts_like_a_signal() -> None:
    said = []
    stopping.listen_to(lambda: bool(said))
    assert not stopping.requested()
    assert stopping.seconds_since() == 0
    said.append("stop")
    assert stopping.requested()
    said.clear()
    assert stopping.requested()


def test_items_are_passed_on_until_the_process_is_told_to_stop() -> None:
    passed = []

    def work() -> None:
        for item in stopping.interruptible(range(10)):
            passed.append(item)
            if item == 3:
                signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Stopped):
        work()
    assert passed == [0, 1, 2, 3]
