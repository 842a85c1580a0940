"""Two who change a registry at once, on real stores with and without conditional writes: one entry each time, the other told.

In a folder 200 rounds of writing an entry and 20 of whole promotions; an eighth of that on servers, times SDLORA_SOAK.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from service.artifacts.history import History, append
from service.artifacts.kinds.registry import Entry
from service.exits import Rejected
from service.jobs.promote import promote
from service.settings.promote import PromoteSettings
from service.storage.interface import ObjectStore
from service.storage.local import LocalStore
from service.storage.opening import open_store
from tests.releases import entries, evaluated, reigning, trained

SOAK = int(os.environ.get("SDLORA_SOAK", "1"))
FOLDER, SERVER = 200, 25
ENTRIES_A_PROMOTION = 10
"""A promotion takes as long as writing this many entries."""


@pytest.fixture
def store(store_uri: str) -> ObjectStore:
    return open_store(store_uri)


@pytest.fixture
def rounds(store: ObjectStore) -> int:
    return FOLDER if isinstance(store, LocalStore) else SERVER * SOAK


def at_once(*actions: Callable[[], object]) -> list[object]:
    """What the actions return, or the refusal that they raise, each on a thread of its own from the same moment on."""
    barrier, results = threading.Barrier(len(actions)), list[object]([None] * len(actions))

    def act(place: int) -> None:
        barrier.wait()
        try:
            results[place] = actions[place]()
        except Exception as error:  # noqa: BLE001 - whatever it is, the test looks at it
            results[place] = error

    threads = [threading.Thread(target=act, args=(place,)) for place in range(len(actions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_of_two_entries_at_once_one_is_written_and_both_writers_know_which(store: ObjectStore, rounds: int) -> None:
    for number in range(rounds):
        history = History.read(store, f"model-{number}")
        one, other = (Entry(lora=f"runs/{name}/lora", version=name, by=name) for name in ("one", "other"))
        told = at_once(lambda: append(store, history, one), lambda: append(store, history, other))  # noqa: B023
        [written] = entries(store, history.model).values()
        assert told == [Entry.from_bytes(written, "it")] * 2
        assert told[0] in (one, other)


def test_two_promoters_at_once_never_both_win_and_the_other_is_told(
    store: ObjectStore, rounds: int, tmp_path: Path
) -> None:
    for run_id in ("one", "other"):
        trained(store, run_id)
        evaluated(store, run_id)
    for number in range(rounds // ENTRIES_A_PROMOTION):
        model = f"model-{number}"

        def promoter(run_id: str, model: str = model) -> str:
            folder = tmp_path / f"{run_id}-{model}"
            return promote(PromoteSettings(artifacts_uri=store.uri, run_id=run_id, model=model, work_dir=folder))

        results = at_once(lambda: promoter("one"), lambda: promoter("other"))
        [key] = entries(store, model)
        assert [result for result in results if isinstance(result, str)] == [key]
        assert [isinstance(result, Rejected) for result in results].count(True) == 1, results
        champion = History.read(store, model).entries[0]
        assert champion.lora == f"runs/{'one' if results[0] == key else 'other'}/lora"
        assert reigning(store, model) == champion.lora


def test_two_who_promote_the_same_evaluation_are_both_done(store: ObjectStore, rounds: int, tmp_path: Path) -> None:
    trained(store, "one")
    evaluated(store, "one")
    for number in range(1 + rounds // ENTRIES_A_PROMOTION // 4):
        model = f"same-{number}"

        def promoter(by: str, model: str = model) -> str:
            folder = tmp_path / f"{by}-{model}"
            return promote(PromoteSettings(artifacts_uri=store.uri, run_id="one", model=model, by=by, work_dir=folder))

        results = at_once(lambda: promoter("one"), lambda: promoter("other"))
        assert results == list(entries(store, model)) * 2
        assert reigning(store, model) == "runs/one/lora"
