"""Errors of the local disk in words, and writes that survive a power cut."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.exits import InputOutput

FULL = {errno.ENOSPC, errno.EDQUOT}
REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def disk_errors(path: Path, setting: str) -> Iterator[None]:
    """Turns an OSError of the block into InputOutput that names the path and the variable which moves it elsewhere."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in FULL:
            advice = f"free space, or set {setting} to a larger volume"
        elif error.errno in REFUSED:
            advice = f"make it writable for user {os.getuid()}, or set {setting} to another place"
        else:
            advice = f"check the volume, or set {setting} to another place"
        raise InputOutput(f"{reason}: {error.filename or path}; {advice}") from error


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
