"""Any order of promote, rollback, retire, prune and kills: no entry is lost or rewritten, and what is named is never swept."""

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from service.artifacts.fetching import verify
from service.artifacts.history import History
from service.artifacts.kinds import registry
from service.exits import BadConfiguration, MissingInput, Rejected
from service.jobs import promote as promoting
from service.jobs import retire as retiring
from service.jobs import rollback as rolling_back
from service.jobs.prune import prune
from service.settings.promote import PromoteSettings, RetireSettings, RollbackSettings
from service.settings.prune import PruneSettings
from service.storage.interface import ObjectStore
from service.storage.local import LocalStore
from tests.releases import MODEL, aged, entries, evaluated, reigning, trained
from tests.watched import Killed, Mortal

RUNS = ["one", "two", "three"]
REFUSALS = (BadConfiguration, MissingInput, Rejected)
EXAMPLES = 10 * int(os.environ.get("SDLORA_SOAK", "1"))
STEPS = 10
LIVES = st.one_of(st.none(), st.integers(1, 14))
"""Before which write the job is killed; None: it lives."""


class Registry(RuleBasedStateMachine):
    """A registry beside what has to be true of it: the entries that were ever seen."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.store = LocalStore(self.folder / "artifacts")
        self.seen: dict[str, bytes] = {}
        for run_id in RUNS:
            trained(self.store, run_id)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    def common(self) -> dict[str, object]:
        return {"artifacts_uri": str(self.store.root), "work_dir": self.folder / "work", "model": MODEL}

    def live(self, module: object, job: object, lives: int | None) -> None:
        """Runs the job on a store that may die; whoever was killed is started again."""
        store: ObjectStore = self.store if lives is None else Mortal(self.store, lives)
        before = len(entries(self.store))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "open_store", lambda _: store)
            try:
                job()  # type: ignore[operator]
            except REFUSALS:
                assert lives is not None or len(entries(self.store)) == before
            except Killed:
                patch.setattr(module, "open_store", lambda _: self.store)
                with suppress(*REFUSALS):
                    job()  # type: ignore[operator]
        assert len(entries(self.store)) <= before + 1

    @rule(run_id=st.sampled_from(RUNS), against=st.booleans(), force=st.booleans(), lives=LIVES)
    def promote(self, run_id: str, against: bool, force: bool, lives: int | None) -> None:
        champion = History.read(self.store, MODEL).champion if against else None
        path = evaluated(self.store, run_id, champion)
        values = PromoteSettings(**self.common(), evaluation=path, force="I want it" if force else "")
        self.live(promoting, lambda: promoting.promote(values), lives)

    @rule(to=st.one_of(st.none(), st.integers(1, 6)), lives=LIVES)
    def rollback(self, to: int | None, lives: int | None) -> None:
        values = RollbackSettings(**self.common(), to=to)
        self.live(rolling_back, lambda: rolling_back.rollback(values), lives)

    @rule(run_id=st.sampled_from(RUNS), lives=LIVES)
    def retire(self, run_id: str, lives: int | None) -> None:
        values = RetireSettings(**self.common(), loras=[f"runs/{run_id}/lora"], reason="r")
        self.live(retiring, lambda: retiring.retire(values), lives)

    @rule()
    def prune_two_days_later(self) -> None:
        aged(self.store.root)
        prune(PruneSettings(artifacts_uri=str(self.store.root), dry_run=False, all_runs=True))

    @invariant()
    def no_entry_is_lost_or_rewritten(self) -> None:
        if hasattr(self, "store"):
            now = entries(self.store)
            assert now.items() >= self.seen.items()
            self.seen = now

    @invariant()
    def the_champion_is_whole_not_withdrawn_and_its_copy_follows(self) -> None:
        if hasattr(self, "store"):
            history = History.read(self.store, MODEL)
            assert reigning(self.store) == (history.champion.lora if history.champion else None)
            assert history.champion is None or history.champion.version not in history.retired
            for path in registry.named(self.store):
                verify(self.store, path)


def test_whatever_happens_the_history_only_grows_and_what_it_names_stays() -> None:
    run_state_machine_as_test(
        Registry,
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
