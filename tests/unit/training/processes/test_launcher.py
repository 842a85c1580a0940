"""Who is started where, and whose exit code counts."""

import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from service.exits import BadConfiguration
from service.settings.train import TrainSettings
from service.training.processes.launcher import is_worker, planned_workers, root_cause


def failure(rank: int, code: int, timestamp: int) -> ProcessFailure:
    found = ProcessFailure(local_rank=rank, pid=1, exitcode=code, error_file="")
    found.timestamp = timestamp
    return found


def test_a_machine_without_gpus_needs_no_workers() -> None:
    assert not planned_workers(TrainSettings(), {}, gpus=0).needed
    assert not planned_workers(TrainSettings(), {}, gpus=1).needed


def test_every_gpu_gets_a_process() -> None:
    assert planned_workers(TrainSettings(), {}, gpus=4).processes == 4
    assert planned_workers(TrainSettings(processes=2), {}, gpus=4).processes == 2


def test_pods_of_an_indexed_job_meet_at_the_first_one() -> None:
    environment = {"JOB_COMPLETION_INDEX": "1", "MASTER_ADDR": "train-0.train", "MASTER_PORT": "29400"}
    workers = planned_workers(TrainSettings(nodes=2), environment, gpus=1)
    assert (workers.node_rank, workers.endpoint, workers.needed) == (1, "train-0.train:29400", True)


def test_a_setting_is_stronger_than_the_environment() -> None:
    settings = TrainSettings(nodes=3, node_rank=2, rendezvous="first:1234")
    workers = planned_workers(settings, {"JOB_COMPLETION_INDEX": "0", "MASTER_ADDR": "other"}, gpus=0)
    assert (workers.node_rank, workers.endpoint) == (2, "first:1234")


def test_several_machines_that_cannot_know_where_to_meet_are_refused() -> None:
    with pytest.raises(BadConfiguration, match="TRAIN_RENDEZVOUS"):
        planned_workers(TrainSettings(nodes=2), {}, gpus=1)


def test_a_machine_beyond_their_number_is_refused() -> None:
    with pytest.raises(BadConfiguration, match="number 2"):
        planned_workers(TrainSettings(nodes=2, node_rank=2, rendezvous="first:1"), {}, gpus=1)


def test_a_process_of_any_launcher_is_a_worker() -> None:
    assert is_worker({"LOCAL_RANK": "0", "WORLD_SIZE": "2", "RANK": "0"})
    assert not is_worker({"WORLD_SIZE": "2"})


@pytest.mark.parametrize(
    ("codes", "cause"),
    [
        ({0: (70, 1), 1: (65, 2)}, 1),  # the other one only lost its peer
        ({0: (79, 1), 1: (-9, 2)}, 1),  # killed by the system
        ({0: (-15, 1), 1: (81, 2)}, 1),  # ended by the agent
        ({0: (70, 2), 1: (70, 1)}, 1),  # the first
        ({0: (66, 1), 1: (65, 2)}, 0),
    ],
)
def test_the_cause_is_the_worker_with_a_reason_of_its_own(codes: dict[int, tuple[int, int]], cause: int) -> None:
    failures = {rank: failure(rank, code, at) for rank, (code, at) in codes.items()}
    assert root_cause(failures)[0] == cause
