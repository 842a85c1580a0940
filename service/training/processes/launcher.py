"""One process a GPU, and several machines: `sdlora train` starts its own workers through torch's elastic agent."""

import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any

import structlog
import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from service import stopping
from service.cpus import settle_threads
from service.exits import BadConfiguration, ExitCode, PeerLost, Stopped, WorkerFailed
from service.settings.train import TrainSettings

log = structlog.get_logger(__name__)

# What a failed peer leaves to the others is a broken connection, which they take for a lost peer, or for a bug.
CONSEQUENCES = (ExitCode.BUG, ExitCode.PEER_LOST)
LOST_PEER_DELAY = 5.0
"""Seconds that a worker with such a code waits before it ends."""
CHECK_EVERY = 0.1
"""Seconds between two checks of the launcher for a stop."""
SAVED = "told to stop; the workers have saved their work, start the job again to go on"
STARTING_PATIENCE = 1.0
"""Seconds that a launcher which is asked to stop waits for workers that have not begun: they have nothing to save."""


@dataclass(frozen=True)
class Workers:
    """processes: on this machine; endpoint: where the first of several machines waits for the others, None for one."""

    processes: int
    nodes: int
    node_rank: int
    endpoint: str | None

    @property
    def needed(self) -> bool:
        """Whether one process, this one, is not enough."""
        return self.processes * self.nodes > 1


def planned_workers(settings: TrainSettings, environment: Mapping[str, str], gpus: int) -> Workers:
    """Who is to be started where. Raises BadConfiguration for several machines that cannot know where to meet."""
    processes = settings.processes or max(1, gpus)
    rank = settings.node_rank if settings.node_rank is not None else int(environment.get("JOB_COMPLETION_INDEX") or 0)
    endpoint = settings.rendezvous
    if endpoint is None and environment.get("MASTER_ADDR"):
        endpoint = f"{environment['MASTER_ADDR']}:{environment.get('MASTER_PORT') or 29500}"
    if settings.nodes > 1 and endpoint is None:
        raise BadConfiguration(
            f"TRAIN_NODES={settings.nodes} machines need TRAIN_RENDEZVOUS=host:port of the first one"
        )
    if rank >= settings.nodes:
        raise BadConfiguration(f"this machine is number {rank}, and TRAIN_NODES={settings.nodes}; they count from 0")
    return Workers(processes, settings.nodes, rank, endpoint if settings.nodes > 1 else None)


def is_worker(environment: Mapping[str, str]) -> bool:
    """Whether this process is one of several already: of ours, or of a launcher of the user's own."""
    return "LOCAL_RANK" in environment and "WORLD_SIZE" in environment


class SharedFlags:
    """Two flags between the launcher and its workers, in shared memory: without a lock, which a killed one would keep."""

    def __init__(self) -> None:
        context = torch.multiprocessing.get_context("spawn")
        self._stop = context.RawValue("b", 0)
        self._started = context.RawValue("b", 0)

    def request_stop(self) -> None:
        self._stop.value = 1

    def stop_requested(self) -> bool:
        return bool(self._stop.value)

    def set_started(self) -> None:
        """A worker is at work."""
        self._started.value = 1

    def any_started(self) -> bool:
        return bool(self._started.value)


WorkerMain = Callable[[TrainSettings, SharedFlags], None]


def run_workers(worker_main: WorkerMain, settings: TrainSettings, workers: Workers) -> None:
    """Runs `worker_main(settings, flags)` in every process and waits for all of them.

    Raises WorkerFailed with the exit code of the worker that failed for a reason of its own, Stopped when they stopped
    because they were asked to, PeerLost for one that was killed.
    """
    settle_threads(os.environ, workers.processes)
    log.info("workers started", processes=workers.processes, nodes=workers.nodes, node_rank=workers.node_rank)
    flags = SharedFlags()
    try:
        with _forwarding_stop(flags):
            elastic_launch(_launch_config(settings, workers), worker_main)(settings, flags)
    except ChildFailedError as error:
        rank, failure = root_cause(error.failures)
        if failure.exitcode == ExitCode.STOPPED or (flags.stop_requested() and not flags.any_started()):
            raise Stopped(SAVED) from error
        if failure.exitcode < 0:
            raise PeerLost(
                f"worker {rank} was killed by signal {-failure.exitcode}; start the job again, it goes on from its last "
                "checkpoint"
            ) from error
        code = ExitCode(failure.exitcode) if failure.exitcode in set(ExitCode) else ExitCode.BUG
        raise WorkerFailed(f"worker {rank} ended with exit code {failure.exitcode}, see its own line", code) from error


def _launch_config(settings: TrainSettings, workers: Workers) -> LaunchConfig:
    return LaunchConfig(
        min_nodes=workers.nodes,
        max_nodes=workers.nodes,
        nproc_per_node=workers.processes,
        run_id=settings.run_id,
        rdzv_backend="static" if workers.endpoint else "c10d",
        rdzv_endpoint=workers.endpoint or f"127.0.0.1:{free_port()}",
        rdzv_configs={"rank": workers.node_rank, "timeout": settings.peer_timeout},
        # The Job starts the pod again, and it resumes: a restart in here would hide what happened.
        max_restarts=0,
        monitor_interval=0.2,
        local_addr=None if workers.endpoint else "127.0.0.1",
        logs_specs=DefaultLogsSpecs(),
        start_method="spawn",
        # SIGTERM and SIGINT are left to us: the agent would kill workers that save for longer than it waits, and it
        # would not report how they ended.
        signals_to_handle="SIGHUP,SIGQUIT",
    )


@contextmanager
def _forwarding_stop(flags: SharedFlags) -> Iterator[None]:
    """Asks the workers to stop as soon as this process is asked to.

    While the block starts them the signals are held back in its thread, and so in theirs, until they can listen: one
    that reaches the whole process group must not end a worker that is still loading its libraries.
    """
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(CHECK_EVERY):
            if stopping.requested():
                flags.request_stop()
                if not ended.wait(STARTING_PATIENCE) and not flags.any_started():
                    _end_unstarted()
                return

    watcher = threading.Thread(target=copy_context().run, args=(watch,), name="stop", daemon=True)
    watcher.start()  # it takes the signals; their handler runs in the main thread all the same
    held = signal.pthread_sigmask(signal.SIG_BLOCK, stopping.SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        ended.set()
        watcher.join()


def _end_unstarted() -> None:
    """Ends workers that are still loading their libraries."""
    workers = multiprocessing.active_children()
    for worker in workers:
        worker.kill()
    if not workers:
        # The other machines may never come to the meeting place: there is no end to wait for.
        stopping.end()


def root_cause(failures: Mapping[int, ProcessFailure]) -> tuple[int, Any]:
    """Rank and failure of the worker that the others failed for: one with a reason of its own, else the first.

    A worker that was killed comes before those that only say that they lost it.
    """
    ordered = sorted(failures.items(), key=lambda item: (item[1].timestamp, item[0]))
    own = [item for item in ordered if item[1].exitcode > 1 and item[1].exitcode not in CONSEQUENCES]
    # The agent itself ends those that are left over, by SIGTERM.
    killed = [item for item in ordered if item[1].exitcode < 0 and item[1].exitcode != -15]
    return (own or killed or ordered)[0]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def gpu_count() -> int:
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def exit_stopped(reason: str) -> None:
    """Ends a worker at once that was asked to stop while it had nothing to save."""
    log.info("stopped", reason=reason, exit_code=int(ExitCode.STOPPED))
    sys.stderr.flush()
    os._exit(ExitCode.STOPPED)


def exit_with(code: ExitCode) -> None:
    """Ends a worker. At once where it failed: a process group that lost a member may wait for it for ever.

    But a worker that may only have lost its peer lets it go first: the agent reports the first end that it sees, looks
    a few times a second, and then ends the others.
    """
    if code in CONSEQUENCES:
        stopping.restore_handlers()
        time.sleep(LOST_PEER_DELAY)
    if code != ExitCode.DONE:
        sys.stderr.flush()
        os._exit(code)
