"""Any order of saving, uploading, dying, a second writer, retention and resuming, with faults of the storage in between.

What must hold: the newest committed checkpoint is never lost, and none that is partial is ever returned. At least 2,000 steps
a run; SDLORA_SOAK multiplies them.
"""

import os
import shutil
import tempfile
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from service.artifacts.fetching import fetch
from service.artifacts.publishing import list_artifacts, publish
from service.artifacts.retention import Keep, carry_out, plan_retention, plan_sweep
from service.artifacts.runs import Run
from service.exits import AccessDenied
from service.storage.interface import NotFound, ObjectStore, StoredObject
from service.storage.opening import open_store
from service.training.checkpoints import Checkpoint, commit, newest_checkpoint
from tests.conftest import use
from tests.faults import LASTING, Fault, Faults, faulty
from tests.integration.test_storage_faults import hurry
from tests.servers import S3Server

STEPS = 2000 * int(os.environ.get("SDLORA_SOAK", "1"))
STEPS_A_RUN = 50
SETTINGS = {"rank": 4}
KINDS = [fault for fault in Fault for _ in range(1 if fault.name.startswith("STALL") else 6)]
"""Stalls are rare, because each costs half a second."""
FAULTS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 9)), max_size=2)
"""Faults, and how many requests that each can happen to it lets pass."""


class Killed(BaseException):
    """The process ends here, whatever would have caught an error."""


def die() -> None:
    raise Killed


class InterruptedStore:
    """A store in whose n-th operation something else happens first: a kill, or what another process does meanwhile."""

    def __init__(self, store: ObjectStore, operation: int, action: Callable[[], object]) -> None:
        self._store, self._left, self._action = store, operation, action
        self.uri = store.uri

    def put(self, key: str, data: bytes | Path) -> None:
        self._interrupt()
        self._store.put(key, data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self._interrupt()
        return self._store.put_if_absent(key, data)

    def get(self, key: str) -> bytes:
        self._interrupt()
        return self._store.get(key)

    def download(self, key: str, target: Path) -> None:
        self._interrupt()
        self._store.download(key, target)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        self._interrupt()
        return self._store.list(prefix)

    def delete(self, key: str) -> None:
        self._interrupt()
        self._store.delete(key)

    def _interrupt(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._action()


class Storage(RuleBasedStateMachine):
    """Runs against `store`, behind `faults`. What each step's checkpoints hold is kept here, and whether it is committed."""

    faults: Faults
    store: ObjectStore
    steps = 0

    @initialize()
    def begin(self) -> None:
        self.faults.clear()
        self.run = Run(self.store, uuid.uuid4().hex[:12])
        self.place = Path(tempfile.mkdtemp())
        self.step = 0
        self.saved: tuple[int, Path, str] | None = None
        self.written: defaultdict[int, set[str]] = defaultdict(set)
        self.newest = 0
        self.published: str | None = None

    def teardown(self) -> None:
        if hasattr(self, "run"):
            self.faults.clear()
            self.check_resume(self.run)
            shutil.rmtree(self.place)

    # What happens

    @rule(size=st.integers(1, 300))
    def save(self, size: int) -> None:
        self.count([])
        self.step += 1
        self.saved = self.make(self.step, size)

    @precondition(lambda self: self.saved is not None)
    @rule(faults=FAULTS)
    def upload(self, faults: list[tuple[Fault, int]]) -> None:
        self.count(faults)
        self.commit(self.run)

    @precondition(lambda self: self.saved is not None)
    @rule(faults=FAULTS, operation=st.integers(1, 12))
    def upload_and_die(self, faults: list[tuple[Fault, int]], operation: int) -> None:
        self.count(faults)
        self.commit(self.interrupted(operation, die))

    @precondition(lambda self: self.saved is not None)
    @rule(faults=FAULTS, operation=st.integers(1, 12), ahead=st.integers(0, 2))
    def upload_while_a_second_writer_does(self, faults: list[tuple[Fault, int]], operation: int, ahead: int) -> None:
        self.count(faults)
        other = self.make(self.step + ahead, 50)
        self.commit(self.interrupted(operation, lambda: self.commit(self.run, other)))

    @precondition(lambda self: self.saved is not None)
    @rule(faults=FAULTS, operation=st.integers(1, 12), every=st.integers(0, 3))
    def upload_while_retention_runs(self, faults: list[tuple[Fault, int]], operation: int, every: int) -> None:
        self.count(faults)
        self.commit(self.interrupted(operation, lambda: self.retain(self.run, every, timedelta())))

    @rule(faults=FAULTS, every=st.integers(0, 3), protected=st.sets(st.integers(1, 9)), later=st.booleans())
    def retention(self, faults: list[tuple[Fault, int]], every: int, protected: set[int], later: bool) -> None:
        self.count(faults)
        self.retain(self.run, every, timedelta(hours=25 if later else 0), protected)

    @rule(faults=FAULTS, every=st.integers(0, 3), operation=st.integers(1, 8))
    def retention_dies(self, faults: list[tuple[Fault, int]], every: int, operation: int) -> None:
        self.count(faults)
        self.retain(self.interrupted(operation, die), every, timedelta())

    @rule(faults=FAULTS)
    def resume(self, faults: list[tuple[Fault, int]]) -> None:
        self.count(faults)
        self.check_resume(self.run)

    @rule(faults=FAULTS, operation=st.integers(1, 8), every=st.integers(0, 3))
    def resume_while_retention_runs(self, faults: list[tuple[Fault, int]], operation: int, every: int) -> None:
        self.count(faults)
        self.check_resume(self.interrupted(operation, lambda: self.retain(self.run, every, timedelta())))

    @rule(
        faults=FAULTS,
        first=st.integers(1, 3),
        second=st.integers(1, 3),
        operation=st.integers(1, 10),
        dies=st.booleans(),
    )
    def two_writers_publish_the_result(
        self, faults: list[tuple[Fault, int]], first: int, second: int, operation: int, dies: bool
    ) -> None:
        self.count(faults)
        meanwhile = die if dies else (lambda: self.publish(self.run, second))
        self.publish(self.interrupted(operation, meanwhile), first)
        self.check_result()

    # How it is done, and what must hold

    def count(self, faults: list[tuple[Fault, int]]) -> None:
        """Counts the step. Faults that the one before did not come to are still to come."""
        Storage.steps += 1
        for fault, skip in faults if len(self.faults.planned) < 4 else ():
            self.faults.plan(fault, skip=skip)

    def interrupted(self, operation: int, action: Callable[[], object]) -> Run:
        return Run(InterruptedStore(self.store, operation, action), self.run.run_id)

    def make(self, step: int, size: int) -> tuple[int, Path, str]:
        tag = f"{step}-{uuid.uuid4().hex}"
        folder = self.place / tag
        folder.mkdir()
        (folder / "weights").write_text(tag * size)
        (folder / "state.json").write_text(f"{tag} {size}")
        return step, folder, tag

    def tolerant(self, action: Callable[[], object]) -> bool:
        """Whether the action ended well. A kill may end it, and a refusal of the storage; nothing else may."""
        refusals = sum(self.faults.happened[fault] for fault in LASTING)
        try:
            action()
        except Killed:
            return False
        except AccessDenied:
            assert sum(self.faults.happened[fault] for fault in LASTING) > refusals
            return False
        return True

    def commit(self, run: Run, what: tuple[int, Path, str] | None = None) -> None:
        step, folder, tag = what or self.saved  # type: ignore[misc]
        self.written[step].add(tag)
        if self.tolerant(lambda: commit(run, folder, step, SETTINGS)):
            self.newest = max(self.newest, step)

    def retain(self, run: Run, every: int, later: timedelta, protected: set[int] = frozenset()) -> None:  # type: ignore[assignment]
        def act() -> None:
            now = datetime.now(UTC) + later
            carry_out(run.store, plan_retention(run, Keep(2, every), protected, now))
            if later:
                own = f"runs/{run.run_id}/"
                carry_out(run.store, [left for left in plan_sweep(run.store, now) if left.path.startswith(own)])

        self.tolerant(act)

    def check_resume(self, run: Run) -> None:
        newest = self.newest
        found: list[Checkpoint | None] = []
        work_dir = self.place / uuid.uuid4().hex
        if not self.tolerant(lambda: found.append(newest_checkpoint(run, SETTINGS, work_dir))):
            return
        if found[0] is None:
            assert newest == 0
            return
        tag, size = (found[0].folder / "state.json").read_text().split()
        step = int(tag.partition("-")[0])
        assert tag in self.written[step]
        assert (found[0].folder / "weights").read_text() == tag * int(size)
        assert step >= newest
        self.step = max(self.step, step)

    def publish(self, run: Run, who: int) -> None:
        folder = self.place / f"result-{who}"
        folder.mkdir(exist_ok=True)
        for name in ("a", "b"):
            (folder / name).write_text(f"{name} of {who}")
        self.tolerant(lambda: publish(run.store, folder, kind="lora", path=run.lora_path, settings=SETTINGS))

    def check_result(self) -> None:
        found: list[str] = []

        def act() -> None:
            try:
                folder = fetch(self.store, self.run.lora_path, self.place / uuid.uuid4().hex)
            except NotFound:
                assert self.published is None
                return
            found.extend((folder / name).read_text().removeprefix(f"{name} of ") for name in ("a", "b"))

        if self.tolerant(act) and found:
            assert found[0] == found[1]
            assert self.published in (None, found[0])
            self.published = found[0]


@pytest.fixture
def faults(server: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    running: S3Server = request.getfixturevalue(server)
    with faulty(running) as faults:
        use(faults.server, monkeypatch)
        hurry(monkeypatch)
        monkeypatch.setenv("S3_READ_TIMEOUT", "0.5")
        yield faults


@pytest.mark.parametrize(("server", "fifths"), [("rclone", 4), ("moto", 1)])
def test_the_newest_committed_checkpoint_is_never_lost_and_no_partial_one_is_ever_returned(
    faults: Faults, fifths: int
) -> None:
    Storage.faults = faults
    Storage.store = open_store(f"s3://{faults.server.new_bucket()}/team")
    Storage.steps = 0
    chosen = settings(
        max_examples=4, stateful_step_count=STEPS_A_RUN, deadline=None, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    wanted = STEPS * fifths // 5
    while Storage.steps < wanted:
        run_state_machine_as_test(Storage, settings=chosen)
    assert Storage.steps >= wanted
    assert sum(faults.happened.values()) > wanted // 10
    assert not [path for path in list_artifacts(Storage.store, "") if "FILES-" in path]
