"""Exit codes of every job, and the exceptions that carry them.

The numbers follow sysexits.h where it has a meaning that fits. A Kubernetes Job's podFailurePolicy sees by them whether
another attempt can help.
"""

import errno
import os
from enum import IntEnum
from typing import NamedTuple


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


class Meaning(NamedTuple):
    """What an exit code says, and what its reader does next: one row of the README's table."""

    what: str
    next: str


MEANINGS: dict[ExitCode, Meaning] = {
    ExitCode.DONE: Meaning("done, or already done", "go on with the next job"),
    ExitCode.BAD_DATA: Meaning(
        "bad data: damaged, unreadable, or too little",
        "mend or replace what the error names; another attempt would end the same way",
    ),
    ExitCode.MISSING_INPUT: Meaning(
        "missing input", "run the job that makes it, or correct the variable that the error names"
    ),
    ExitCode.STORAGE_UNREACHABLE: Meaning(
        "storage or model hub unreachable", "start the job again once it answers; it goes on from what is stored"
    ),
    ExitCode.BUG: Meaning(
        "a bug of ours, or no progress in several attempts", "report the stack trace in the log; start the job again"
    ),
    ExitCode.OUT_OF_DEVICE_MEMORY: Meaning(
        "out of device memory", "set a smaller batch or resolution, or take a larger GPU"
    ),
    ExitCode.INPUT_OUTPUT: Meaning(
        "local disk full, read-only or failing", "free space or move WORK_DIR, then start the job again"
    ),
    ExitCode.STOPPED: Meaning(
        "told to stop, with all that was finished stored", "start the job again; it goes on from there"
    ),
    ExitCode.STALLED: Meaning(
        "no progress for too long", "start the job again; if it stalls again, send the stacks in the log to its makers"
    ),
    ExitCode.ACCESS_DENIED: Meaning(
        "credentials refused", "correct the credentials or their rights, then start the job again"
    ),
    ExitCode.BAD_CONFIGURATION: Meaning(
        "bad configuration",
        "correct the variable that the error names; `sdlora config --check` says whether all is well",
    ),
    ExitCode.PEER_LOST: Meaning(
        "another process of the training was lost", "start the job again; it goes on from its last checkpoint"
    ),
    ExitCode.REJECTED: Meaning(
        "not promoted: the evaluation does not say so, is of an older champion, or another change was faster",
        "look at the evaluation's page, then train with more or better images, or evaluate against the champion of now",
    ),
    ExitCode.DIVERGED: Meaning(
        "the loss is no longer finite",
        "look at the images that the error names, or lower TRAIN_LEARNING_RATE; new RUN_ID",
    ),
}


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
    """The object store or the model hub does not answer, or not sensibly, after all retries."""

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
    """A LoRA that was to become the champion does not: the gate turned it down, or somebody else was faster."""

    exit_code = ExitCode.REJECTED


class PeerLost(ServiceError):
    """Another process of the same training is gone, or does not answer."""

    exit_code = ExitCode.PEER_LOST


class Stopped(ServiceError):
    """The job was asked to stop and did so with its work saved; the next start goes on from there."""

    exit_code = ExitCode.STOPPED


class Stalled(ServiceError):
    """No step was finished for longer than any step may take."""

    exit_code = ExitCode.STALLED


class Diverged(ServiceError):
    """The loss is no longer finite."""

    exit_code = ExitCode.DIVERGED


class PassedOn(ServiceError):
    """A failure found elsewhere, whose exit code becomes that of the job."""

    def __init__(self, message: str, exit_code: ExitCode) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class WorkerFailed(PassedOn):
    """A process that this one had started ended with a code of its own."""


class ChecksFailed(PassedOn):
    """`doctor` found what would fail; the code is that of its first finding."""


FULL_DISK = {errno.ENOSPC, errno.EDQUOT}
REFUSING_DISK = {errno.EROFS, errno.EACCES, errno.EPERM}
FAILING_DISK = {errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOTDIR}


def judge(error: Exception) -> tuple[ExitCode, str]:
    """Exit code and one line for an exception that ended a job."""
    if isinstance(error, ServiceError):
        return error.exit_code, str(error)
    if isinstance(error, OSError) and error.errno in FULL_DISK | REFUSING_DISK | FAILING_DISK:
        return ExitCode.INPUT_OUTPUT, f"{error.strerror}: {error.filename or 'a file'}; {disk_advice(error)}"
    if out_of_memory(error):
        return (
            ExitCode.OUT_OF_DEVICE_MEMORY,
            f"the device has not enough memory, try a smaller batch or resolution: {_one_line(error)}",
        )
    return ExitCode.BUG, f"{type(error).__name__}: {_one_line(error)}"


def out_of_memory(error: BaseException) -> bool:
    """Whether torch found no memory: it has a class of its own for a device that is full, and none for a full host."""
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def disk_advice(error: OSError, setting: str = "WORK_DIR or ARTIFACTS_URI") -> str:
    """What to do about an error of the local disk; `setting` moves what is there to another place."""
    if error.errno in FULL_DISK:
        return f"free some space, or set {setting} to a larger volume"
    if error.errno in REFUSING_DISK:
        return f"make it writable for user {os.getuid()}, or set {setting} to another place"
    return f"check the volume, or set {setting} to another place"
