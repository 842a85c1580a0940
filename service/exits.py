"""Exit codes of every job, and the exceptions that carry them.

The numbers follow sysexits.h where it has a meaning that fits. A Kubernetes Job's podFailurePolicy tells from them whether
another attempt can help.
"""

import errno
from enum import IntEnum


class ExitCode(IntEnum):
    DONE = 0
    BAD_DATA = 65
    MISSING_INPUT = 66
    STORAGE_UNREACHABLE = 69
    BUG = 70
    OUT_OF_DEVICE_MEMORY = 73
    INPUT_OUTPUT = 74
    STOPPED = 75
    STALLED = 76
    ACCESS_DENIED = 77
    BAD_CONFIGURATION = 78
    PEER_LOST = 79
    REJECTED = 80
    DIVERGED = 81


class ServiceError(Exception):
    """An end that the user can act on: one line that says what was wrong, with which value, and what to do."""

    exit_code = ExitCode.BUG


class BadData(ServiceError):
    """The data is there and is not what it must be: a checksum, an image, too few of them."""

    exit_code = ExitCode.BAD_DATA


class MissingInput(ServiceError):
    """Something that the job reads does not exist."""

    exit_code = ExitCode.MISSING_INPUT


class StorageUnreachable(ServiceError):
    """The object store does not answer, or not sensibly, after all retries."""

    exit_code = ExitCode.STORAGE_UNREACHABLE


class OutOfDeviceMemory(ServiceError):
    exit_code = ExitCode.OUT_OF_DEVICE_MEMORY


class InputOutput(ServiceError):
    """The local disk failed or is full."""

    exit_code = ExitCode.INPUT_OUTPUT


class AccessDenied(ServiceError):
    """The store refused the credentials. Never to be taken for an empty bucket."""

    exit_code = ExitCode.ACCESS_DENIED


class BadConfiguration(ServiceError):
    exit_code = ExitCode.BAD_CONFIGURATION


class Rejected(ServiceError):
    """The gate turned the LoRA down, and the caller had asked for that to be a failure."""

    exit_code = ExitCode.REJECTED


class PeerLost(ServiceError):
    """Another process of the same training is gone, or does not answer."""

    exit_code = ExitCode.PEER_LOST


class Stopped(ServiceError):
    """The job was told to stop and did so with its work saved; the next start goes on from there."""

    exit_code = ExitCode.STOPPED


class Stalled(ServiceError):
    """No step was finished for longer than any step may take."""

    exit_code = ExitCode.STALLED


class Diverged(ServiceError):
    """The loss is no longer finite."""

    exit_code = ExitCode.DIVERGED


class WorkerFailed(ServiceError):
    """A process that this one had started ended with a code of its own, which is passed on."""

    def __init__(self, message: str, exit_code: ExitCode) -> None:
        super().__init__(message)
        self.exit_code = exit_code


FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}


def judge(error: Exception) -> tuple[ExitCode, str]:
    """Exit code and one line for an exception that ended a job."""
    if isinstance(error, ServiceError):
        return error.exit_code, str(error)
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        return ExitCode.INPUT_OUTPUT, f"{error.strerror}: {error.filename or 'a file'}; free some space and start again"
    if type(error).__name__ == "OutOfMemoryError":
        return (
            ExitCode.OUT_OF_DEVICE_MEMORY,
            f"the device has not enough memory, try a smaller batch or resolution: {error}",
        )
    return ExitCode.BUG, f"{type(error).__name__}: {error}"
