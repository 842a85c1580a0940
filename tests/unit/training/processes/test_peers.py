"""A process group that broke is a lost peer; any other error of a training is not."""

import pytest
from torch.distributed import DistBackendError, DistNetworkError, DistStoreError

from service.exits import ExitCode, PeerLost, judge
from service.training.processes.peers import is_lost_peer, reporting_lost_peers

GLOO = "[/__w/pytorch/pytorch/third_party/gloo/gloo/transport/tcp/"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(f"{GLOO}pair.cc:561] Connection closed by peer [127.0.0.1]:9653. GLHF! 🏖️"),
        RuntimeError(f"{GLOO}pair.cc:545] Read error [127.0.0.1]:9647: Connection reset by peer."),
        RuntimeError(f"{GLOO}unbound_buffer.cc:78] Timed out waiting 3000ms for recv operation to complete"),
        RuntimeError("Application timeout caused pair closure"),
        DistNetworkError("The client socket has timed out after 60000ms while trying to connect to (first, 29500)."),
        DistStoreError("Timed out after 61 seconds waiting for clients. 1/2 clients joined."),
        DistBackendError("NCCL error in: NCCLUtils.cpp:94, remote process exited: ncclRemoteError"),
        DistBackendError("[Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7) timed out"),
    ],
)  # fmt: skip
def test_a_broken_process_group_is_a_lost_peer(error: RuntimeError) -> None:
    with pytest.raises(PeerLost, match="start the job again") as told, reporting_lost_peers():
        raise error
    assert judge(told.value)[0] == ExitCode.PEER_LOST
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (4x8 and 16x4)"),
        RuntimeError("DataLoader timed out after 60 seconds"),
        NotImplementedError(f"{GLOO}pair.cc:561] Connection closed by peer"),
        DistBackendError("NCCL error in: NCCLUtils.cpp:94, invalid usage: ncclInvalidUsage"),
        ConnectionResetError("Connection reset by peer"),
    ],
)
def test_any_other_error_is_what_it_was(error: Exception) -> None:
    assert not is_lost_peer(error)
    with pytest.raises(type(error)), reporting_lost_peers():
        raise error
