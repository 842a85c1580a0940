"""Training on a store that takes no checkpoint now and then, or none any more, or is slow when the job is told to stop.

In the end it is the LoRA of a training whose store takes everything.
"""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.exits import ExitCode
from service.storage.opening import open_store
from tests.conftest import use
from tests.faults import Fault, Faults, Request, faulty
from tests.integration.chain import TRAINING, End, finish, lora_bytes, start_group
from tests.servers import S3Server

ALLOWED = 3
VARIABLES = TRAINING | {
    "DATA_PREP_LIMIT": "12",
    "TRAIN_MAX_STEPS": "12",
    "TRAIN_CHECKPOINT_EVERY": "2",
    "TRAIN_VALIDATE_EVERY": "6",
    "TRAIN_BATCH_SIZE": "4",
    "TRAIN_SAMPLES": "0",
    "TRAIN_FAILED_UPLOADS": str(ALLOWED),
    "OMP_NUM_THREADS": "1",
    "AWS_MAX_ATTEMPTS": "1",
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The LoRA of a training whose store takes everything."""
    folder = tmp_path_factory.mktemp("undisturbed")
    for job in ("data-prep", "train"):
        assert finish(job, folder, VARIABLES).code == ExitCode.DONE
    return lora_bytes(folder)


@pytest.fixture
def faults(rclone: S3Server) -> Iterator[Faults]:
    with faulty(rclone) as faults:
        yield faults


@pytest.fixture
def variables(faults: Faults, tmp_path: Path) -> dict[str, str]:
    """Those of a run on the server behind the faults, with a data set."""
    found = VARIABLES | faults.server.environment | {"ARTIFACTS_URI": f"s3://{faults.server.new_bucket()}"}
    # Patient, unlike what is tested: the store may be late where the machine has other work.
    assert finish("data-prep", tmp_path, found | {"AWS_MAX_ATTEMPTS": "5"}).code == ExitCode.DONE
    return found


def makes_a_checkpoint(request: Request) -> bool:
    return request.method == "PUT" and "/checkpoints/" in request.path and request.path.endswith("MANIFEST.json")


def gets_a_file_of_the_data_set(request: Request) -> bool:
    return request.method == "GET" and "/datasets/" in request.path and not request.path.endswith("MANIFEST.json")


def failures(end: End) -> list[int]:
    return [event["failures"] for event in end.events if event["event"] == "checkpoint not committed, training goes on"]


def stored_lora(variables: dict[str, str], faults: Faults, monkeypatch: pytest.MonkeyPatch) -> bytes:
    use(faults.server, monkeypatch)
    return open_store(variables["ARTIFACTS_URI"]).get("runs/demo/lora/pytorch_lora_weights.safetensors")


def test_fewer_failures_in_a_row_than_allowed_are_warned_about_and_change_nothing(
    faults: Faults, variables: dict[str, str], undisturbed: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(ALLOWED - 1):
        faults.plan(Fault.UNAVAILABLE_BEFORE, makes_a_checkpoint)
    end = finish("train", tmp_path, variables)
    assert end.code == ExitCode.DONE, end.events
    assert failures(end) == list(range(1, ALLOWED))
    assert end.last("checkpoint committed")["step"] == 12
    assert stored_lora(variables, faults, monkeypatch) == undisturbed


def test_as_many_as_allowed_end_with_69_and_the_next_attempt_makes_the_same_lora(
    faults: Faults, variables: dict[str, str], undisturbed: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(10 * ALLOWED):
        faults.plan(Fault.UNAVAILABLE_BEFORE, makes_a_checkpoint)
    end = finish("train", tmp_path, variables)
    assert end.code == ExitCode.STORAGE_UNREACHABLE, end.events
    assert failures(end) == list(range(1, ALLOWED))
    assert "ServiceUnavailable" in end.last("failed")["error"]
    assert [event for event in end.events if event["event"] == "checkpoint committed"] == []
    faults.clear()
    assert finish("train", tmp_path, variables).code == ExitCode.DONE
    assert stored_lora(variables, faults, monkeypatch) == undisturbed


def told_while_downloading(processes: int, faults: Faults, variables: dict[str, str], folder: Path) -> list[End]:
    """How a training ends whose last process is told to stop while its data set comes slowly."""
    for _ in range(24):  # a few seconds, and fewer in a row than boto3 gives up at
        faults.plan(Fault.STALL_BEFORE, gets_a_file_of_the_data_set)
    group = start_group(processes, folder, variables | {"AWS_MAX_ATTEMPTS": "8"})
    while not any(map(gets_a_file_of_the_data_set, faults.requests)):
        assert group[0].process.is_alive(), group[0].said()
        time.sleep(0.01)
    group[-1].signal(signal.SIGTERM, everybody=False)
    return [running.wait() for running in group]


def test_told_to_stop_while_it_downloads_the_data_set_it_does_so_between_two_files(
    faults: Faults, variables: dict[str, str], undisturbed: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [end] = told_while_downloading(1, faults, variables, tmp_path)
    assert end.code == ExitCode.STOPPED, end.events
    faults.clear()
    use(faults.server, monkeypatch)
    files = [entry.key for entry in open_store(variables["ARTIFACTS_URI"]).list("datasets/")]
    asked = {request.path for request in faults.requests if gets_a_file_of_the_data_set(request)}
    assert 0 < len(asked) < len(files) - 1
    assert finish("train", tmp_path, variables).code == ExitCode.DONE
    assert stored_lora(variables, faults, monkeypatch) == undisturbed


def test_when_one_of_two_processes_is_told_while_one_downloads_for_both_both_stop(
    faults: Faults, variables: dict[str, str], tmp_path: Path
) -> None:
    ends = told_while_downloading(2, faults, variables, tmp_path)
    assert [end.code for end in ends] == [ExitCode.STOPPED] * 2, ends
