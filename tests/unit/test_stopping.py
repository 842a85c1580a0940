"""The flag: set by the signals or by a launcher, asked for between two pieces of work."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

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


# Its main thread is in a library for half a minute, in which it runs no handler.
BUSY = """
import hashlib, sys
from service import stopping
from service.logs import configure_logs
from service.outcome import end_stopped
stopping.listen(lambda reason: end_stopped("train", reason))
configure_logs("json", run_id="r")
if sys.argv[1] == "launcher":
    said = iter([False] * 5)
    stopping.listen_to(lambda: next(said, True))
with stopping.nothing_to_save(), stopping.nothing_to_save():
    print("busy", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 60_000_000)
print("not stopped")
"""


@pytest.mark.parametrize("number", [*stopping.SIGNALS, None])
def test_while_there_is_nothing_to_save_a_request_ends_the_process_at_once(
    number: signal.Signals | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTCOME_FILE", str(tmp_path / "outcome"))
    command = [sys.executable, "-c", BUSY, "launcher" if number is None else "signal"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "busy\n"
        begin = time.monotonic()
        if number is not None:
            process.send_signal(number)
        out, said = process.communicate(timeout=120)
    assert time.monotonic() - begin < 5
    assert (process.returncode, out) == (ExitCode.STOPPED, "")
    [event] = [json.loads(line) for line in said.splitlines()]
    assert (event["event"], event["run_id"], event["exit_code"]) == ("stopped", "r", 75)
    assert json.loads((tmp_path / "outcome").read_text())["exit_name"] == "STOPPED"


def test_a_request_before_such_a_block_is_heard_at_its_beginning_and_one_within_it_at_its_end() -> None:
    with pytest.raises(Stopped), stopping.nothing_to_save():
        signal.raise_signal(signal.SIGTERM)
    entered = []
    with pytest.raises(Stopped), stopping.nothing_to_save():
        entered.append(True)
    assert entered == []
