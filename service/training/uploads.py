"""Checkpoints on their way to the store, while training goes on."""

import os
import shutil
import threading
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import structlog

from service.exits import Stopped, StorageUnreachable
from service.storage.disk import disk_errors, sync_folder

log = structlog.get_logger(__name__)

LOOK_EVERY = 0.2
"""Seconds between two calls of what whoever waits for the uploads does meanwhile."""


@dataclass(frozen=True)
class _Snapshot:
    """A folder that is complete and nobody's but ours, and the step that it is of."""

    folder: Path
    step: int


class Uploads:
    """Calls `commit(folder, step)` in a thread of its own, one snapshot after the other, and removes their folders.

    One is under way and at most one waits: a newer one takes the place of one that still does, so a slow store costs
    checkpoints, and neither time nor disk. A store that does not answer is a warning; the newest snapshot is kept for
    another attempt, which comes when there is a newer one, or at the end. After `patience` failures in a row, and at
    once after one that a repetition cannot mend, `check` raises what the commit had raised.
    """

    def __init__(self, commit: Callable[[Path, int], None], patience: int) -> None:
        self._commit = commit
        self._patience = patience
        self._changed = threading.Condition()
        self._waiting: _Snapshot | None = None
        self._failed: _Snapshot | None = None
        self._busy = False
        self._closed = False
        self._failures = 0
        self._error: Exception | None = None
        self._thread = threading.Thread(target=copy_context().run, args=(self._work,), name="uploads", daemon=True)

    def __enter__(self) -> "Uploads":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        """What was saved is stored, however the block ended; only who presses Ctrl-C twice does not want to wait."""
        if kind is None or issubclass(kind, Exception):
            self.wait(lambda: None)
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def submit(self, folder: Path, step: int) -> None:
        """Hands a snapshot over. Returns at once."""
        with self._changed:
            for superseded in filter(None, (self._waiting, self._failed)):
                shutil.rmtree(superseded.folder, ignore_errors=True)
            self._waiting, self._failed = _Snapshot(folder, step), None
            self._changed.notify_all()

    def check(self) -> None:
        """Raises the failure that ends the training, if there was one."""
        with self._changed:
            if self._error is not None:
                raise self._error

    def finish(self, meanwhile: Callable[[], None]) -> None:
        """Waits until the newest snapshot is committed, calling `meanwhile` often; raises why it cannot be."""
        self.wait(meanwhile)
        with self._changed:
            if self._failed is not None:
                self._waiting, self._failed = self._failed, None
                self._patience = self._failures + 1  # this time it must succeed
                self._changed.notify_all()
        self.wait(meanwhile)
        self.check()

    def wait(self, meanwhile: Callable[[], None]) -> None:
        """Waits until nothing is under way, calling `meanwhile` often."""
        while True:
            meanwhile()
            with self._changed:
                if not self._busy and (self._waiting is None or self._error is not None):
                    return
                self._changed.wait(LOOK_EVERY)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or (self._waiting is not None and self._error is None))
                if self._closed:
                    return
                assert self._waiting is not None
                snapshot, self._waiting, self._busy = self._waiting, None, True
            failure = self._try(snapshot)
            with self._changed:
                self._busy = False
                self._judge(snapshot, failure)
                self._changed.notify_all()

    def _try(self, snapshot: _Snapshot) -> Exception | None:
        try:
            with disk_errors(snapshot.folder, "WORK_DIR"):
                _sync_files(snapshot.folder)
            self._commit(snapshot.folder, snapshot.step)
        except Exception as error:  # noqa: BLE001 - it is raised where the training asks for it
            return error
        return None

    def _judge(self, snapshot: _Snapshot, failure: Exception | None) -> None:
        if failure is None:
            self._failures = 0
        else:
            self._failures += 1
            # Told to stop while it waited for a store that was away: the training's last checkpoint comes after this one.
            if not isinstance(failure, StorageUnreachable | Stopped) or self._failures >= self._patience:
                self._error = failure
            else:
                log.warning(
                    "checkpoint not committed, training goes on",
                    step=snapshot.step,
                    failures=self._failures,
                    allowed=self._patience,
                    reason=str(failure),
                )
            if self._waiting is None:
                self._failed = snapshot
                return
        shutil.rmtree(snapshot.folder, ignore_errors=True)


def _sync_files(folder: Path) -> None:
    """Makes all that is in a folder survive a crash of the machine."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(folder)
