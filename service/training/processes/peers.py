"""Processes of one training that are gone: how the others notice, and what they make of it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from torch.distributed import DistBackendError, DistNetworkError, DistStoreError

from service.exits import PeerLost

# gloo has no exceptions of its own: it is known by where its messages come from.
GLOO = re.compile(r"gloo/transport/|Application timeout caused pair closure")
# NCCL reports a peer that is gone or silent by these; its other errors are a broken driver or a bug.
NCCL = re.compile(
    r"nccl(Remote|System)Error|[Tt]imed? ?out|[Cc]onnection (closed|reset|refused)|[Cc]ommunicator was aborted"
)


def is_lost_peer(error: BaseException) -> bool:
    """Whether a collective operation failed because another process is gone, or has not answered in time."""
    if isinstance(error, DistNetworkError | DistStoreError):
        return True  # not even the meeting place is there
    if isinstance(error, DistBackendError):
        return bool(NCCL.search(str(error)))
    return type(error) is RuntimeError and bool(GLOO.search(str(error)))


@contextmanager
def reporting_lost_peers() -> Iterator[None]:
    """Raises PeerLost in place of what a broken process group raises in the block."""
    try:
        yield
    except RuntimeError as error:
        if not is_lost_peer(error):
            raise
        reason = " ".join(str(error).split())
        raise PeerLost(
            "another process of this training is gone or does not answer; start the job again, it goes on from its "
            f"last checkpoint ({reason[:200]})"
        ) from error
