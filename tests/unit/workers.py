"""What the tests of the launcher let its workers do: in a module of its own, because every worker imports it."""

import os
import signal
import threading

from service import exits, stopping
from service.logs import configure_logs
from service.outcome import guarded
from service.settings.train import TrainSettings
from service.training.processes.launcher import SharedFlags, exit_with
from service.training.processes.watchdog import Watchdog


def worker_main(settings: TrainSettings, flags: SharedFlags) -> None:
    """The first worker does what the name of the run says; the second one works on for ever, and then loses its peer."""
    configure_logs("json", rank=int(os.environ["RANK"]))
    stopping.listen_to(flags.stop_requested)
    stopping.listen()
    flags.set_started()
    first = os.environ["RANK"] == "0"
    exit_with(guarded(lambda: WAYS.get(settings.run_id, fail)(settings) if first else wait()))


def fail(settings: TrainSettings) -> None:
    """Raises the exception of that name."""
    raise getattr(exits, settings.run_id)(f"as told: {settings.run_id}")


def a_bug(_: TrainSettings) -> None:
    raise ZeroDivisionError("division by zero")


def killed(_: TrainSettings) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stalled(_: TrainSettings) -> None:
    with Watchdog(0.2):
        wait()


def stop(_: TrainSettings) -> None:
    """Takes its time to save, and ends as one that was told to stop."""
    while not stopping.requested():
        threading.Event().wait(0.05)
    threading.Event().wait(0.5)
    stopping.check()


def done(_: TrainSettings) -> None:
    """Both end well."""


def wait() -> None:
    """Until the agent ends it, or for ever."""
    for _ in range(1200):
        stopping.check()
        threading.Event().wait(0.1)


WAYS = {"bug": a_bug, "killed": killed, "stalled": stalled, "stop": stop, "done": done}
