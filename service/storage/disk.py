"""Errors of the local disk in words, and writes that survive a power cut."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from service.exits import InputOutput, disk_advice
from service.stopping import StopCheck

LOOK_EVERY = 1.0
"""Seconds between two looks of whoever waits for another process."""


@contextmanager
def disk_errors(path: Path, setting: str) -> Iterator[None]:
    """Turns an OSError of the block into InputOutput that names the path and the variable which moves it elsewhere."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputOutput(f"{reason}: {error.filename or path}; {disk_advice(error, setting)}") from error


@contextmanager
def one_at_a_time(target: Path, stop_check: StopCheck) -> Iterator[None]:
    """Of the processes of this machine that want the same folder, one after the other: the next ones find it made.

    Without it the eight processes of eight GPUs would download the same data set eight times. `stop_check` is called every
    second of the wait; the lock of a process that died is free.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{target}.lock")
    while not lock.is_locked:
        try:
            lock.acquire(timeout=LOOK_EVERY)
        except Timeout:
            stop_check()
    try:
        yield
    finally:
        lock.release()


def sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` durable. Without it a crash of the node can lose a file that was already reported."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems have no fsync for folders; there the rename is as durable as it gets.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
