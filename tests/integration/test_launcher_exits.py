"""However a worker ends, `sdlora train` ends with the code that says so: real workers, started by the launcher."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from service import exits, stopping
from service.exits import ExitCode, ServiceError, judge
from service.settings.train import TrainSettings
from service.training.processes import launcher
from service.training.processes.launcher import SharedFlags, Workers, run_workers
from tests.unit.workers import worker_main

EXCEPTIONS = [
    kind
    for kind in vars(exits).values()
    if isinstance(kind, type) and issubclass(kind, ServiceError) and kind not in (ServiceError, exits.WorkerFailed)
]
CODES = {kind.__name__: kind.exit_code for kind in EXCEPTIONS} | {
    "ServiceError": ExitCode.BUG,
    "bug": ExitCode.BUG,
    "killed": ExitCode.PEER_LOST,
    "stalled": ExitCode.STALLED,
    "done": ExitCode.DONE,
}


def launch(way: str, processes: int) -> tuple[ExitCode, str]:
    """Exit code of a training whose first worker ends that way, and its one line."""
    try:
        run_workers(worker_main, TrainSettings(run_id=way), Workers(processes, 1, 0, None))
    except ServiceError as error:
        return judge(error)
    return ExitCode.DONE, ""


@pytest.fixture(scope="module")
def ends() -> Iterator[dict[str, tuple[ExitCode, str]]]:
    """Every way to end, two of them at a time: most of it is the loading of libraries."""
    with ThreadPoolExecutor(2) as pool:
        yield dict(zip(CODES, pool.map(lambda way: launch(way, 1), CODES), strict=True))


@pytest.mark.parametrize("way", CODES)
def test_a_worker_s_end_is_the_training_s(way: str, ends: dict[str, tuple[ExitCode, str]]) -> None:
    code, line = ends[way]
    assert code == CODES[way]
    assert "\n" not in line
    assert ("killed by signal 9" in line) == (way == "killed")


def test_every_exit_code_is_among_them() -> None:
    assert set(CODES.values()) == set(ExitCode)


def test_a_worker_with_a_reason_is_reported_and_the_other_one_ended() -> None:
    assert launch("Diverged", 2)[0] == ExitCode.DIVERGED


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[SharedFlags]:
    """The flags of the launch that follows."""
    found: list[SharedFlags] = []

    def noting(flags: SharedFlags) -> None:
        made(flags)
        found.append(flags)

    made = SharedFlags.__init__
    monkeypatch.setattr(SharedFlags, "__init__", noting)
    monkeypatch.setattr(stopping, "_requested_at", None)
    return found


def test_a_stop_is_passed_on_and_waited_for(started: list[SharedFlags], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "_other_source", lambda: any(flags.any_started() for flags in started))
    assert launch("stop", 1) == (ExitCode.STOPPED, launcher.SAVED)


def test_workers_that_are_still_loading_their_libraries_are_not_waited_for(
    started: list[SharedFlags], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "_other_source", lambda: True)
    begin = time.monotonic()
    assert launch("stop", 2)[0] == ExitCode.STOPPED
    assert time.monotonic() - begin < 8
    assert not started[0].any_started()
