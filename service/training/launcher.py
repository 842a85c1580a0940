"""One process a GPU, and several machines: `sdlora train` starts its own workers through torch's elastic agent."""

import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from service.exits import BadConfiguration, ExitCode, PeerLost, WorkerFailed
from service.settings.train import TrainSettings

log = structlog.get_logger(__name__)

# What a failed peer leaves to the others is a broken connection, which they take for a lost peer, or for a bug.
CONSEQUENCES = (ExitCode.BUG, ExitCode.PEER_LOST)
LINGER = 5.0
"""Seconds that a worker with such a code waits before it ends."""


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


def run_workers(work: Callable[[TrainSettings], None], settings: TrainSettings, workers: Workers) -> None:
    """Runs `work(settings)` in every process and waits for all of them.

    Raises WorkerFailed with the exit code of the worker that failed for a reason of its own, PeerLost for one that was
    killed.
    """
    config = LaunchConfig(
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
    )
    log.info("workers started", processes=workers.processes, nodes=workers.nodes, node_rank=workers.node_rank)
    try:
        elastic_launch(config, work)(settings)
    except ChildFailedError as error:
        rank, failure = root_cause(error.failures)
        if failure.exitcode < 0:
            raise PeerLost(
                f"worker {rank} was killed by signal {-failure.exitcode}; start the job again, it goes on from its last "
                "checkpoint"
            ) from error
        code = ExitCode(failure.exitcode) if failure.exitcode in set(ExitCode) else ExitCode.BUG
        raise WorkerFailed(f"worker {rank} ended with exit code {failure.exitcode}, see its own line", code) from error


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


def exit_with(code: ExitCode) -> None:
    """Ends a worker. At once where it failed: a process group that lost a member may wait for it for ever.

    But a worker that may only have lost its peer lets it go first: the agent reports the first end that it sees, looks
    a few times a second, and then ends the others.
    """
    if code in CONSEQUENCES:
        time.sleep(LINGER)
    if code != ExitCode.DONE:
        sys.stderr.flush()
        os._exit(code)
