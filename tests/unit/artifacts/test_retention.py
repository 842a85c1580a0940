"""What retention plans, and that it deletes no more than that."""

import os
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.artifacts.fetching import verify
from service.artifacts.layout import Checkpoint
from service.artifacts.publishing import list_artifacts, publish, publish_version
from service.artifacts.retention import Keep, carry_out, checkpoints_to_delete, plan_retention, plan_sweep
from service.artifacts.runs import Run
from service.exits import BadConfiguration
from service.storage.local import LocalStore

STEPS = st.lists(st.integers(1, 500), max_size=40)
NOW = datetime.now(UTC)
LATER = NOW + timedelta(hours=25)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "artifacts")


@pytest.fixture
def run(store: LocalStore) -> Run:
    return Run(store, "local")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "made").mkdir()
    (tmp_path / "made/weights").write_bytes(bytes(1000))
    return tmp_path / "made"


def checkpoint(run: Run, folder: Path, step: int, attempt: str = "a") -> str:
    path = Checkpoint(run.run_id, step, attempt).path
    publish(run.store, folder, kind="checkpoint", path=path)
    return path


def keys_of(store: LocalStore) -> set[str]:
    return {entry.key for entry in store.list("")}


# The rule


@given(STEPS, st.integers(2, 5), st.integers(0, 50), st.sets(st.integers(1, 500)))
def test_the_last_every_nth_and_the_protected_stay_and_all_others_go(
    steps: list[int], last: int, every: int, protected: set[int]
) -> None:
    gone = checkpoints_to_delete(steps, last, every, protected)
    stay = set(steps) - set(gone)
    assert set(gone) <= set(steps)
    assert gone == sorted(set(gone))
    assert stay >= set(sorted(set(steps))[-last:]) | (protected & set(steps))
    assert all(step % every == 0 for step in stay - protected - set(sorted(set(steps))[-last:]) if every)
    assert not every or not any(step % every == 0 for step in gone)


@given(STEPS, st.integers(2, 5), st.integers(0, 50))
def test_applying_the_rule_again_deletes_nothing_more(steps: list[int], last: int, every: int) -> None:
    stay = set(steps) - set(checkpoints_to_delete(steps, last, every, set()))
    assert checkpoints_to_delete(list(stay), last, every, set()) == []


@pytest.mark.parametrize(("last", "every"), [(1, 0), (0, 0), (2, -1)])
def test_fewer_than_two_are_never_kept(last: int, every: int) -> None:
    with pytest.raises(BadConfiguration, match=r"must be kept|every"):
        Keep(last, every)


# Checkpoints


def test_a_plan_deletes_nothing_and_carrying_it_out_deletes_what_it_lists(run: Run, folder: Path) -> None:
    for step in range(1, 7):
        checkpoint(run, folder, step)
    store = run.store
    before = keys_of(store)
    plan = plan_retention(run, Keep(2, 3), {1}, NOW)
    assert keys_of(store) == before
    assert [deletion.path for deletion in plan] == [Checkpoint(run.run_id, step, "a").path for step in (2, 4)]
    assert all(deletion.keys[0].endswith("MANIFEST.json") and deletion.bytes > 1000 for deletion in plan)
    carry_out(store, plan)
    assert before - keys_of(store) == {key for deletion in plan for key in deletion.keys}
    assert all(verify(store, path) for path in list_artifacts(store, ""))
    assert not (store.root / "runs/local/checkpoints/step-00000002").exists()


def test_the_manifest_goes_first(run: Run, folder: Path) -> None:
    deleted = []

    class Watched(LocalStore):
        def delete(self, key: str) -> None:
            deleted.append(key)
            super().delete(key)

    for step in (1, 2, 3):
        checkpoint(run, folder, step)
    carry_out(Watched(run.store.root), plan_retention(run, Keep(2, 0), set(), NOW))
    assert deleted[0] == ("runs/local/checkpoints/step-00000001/a/MANIFEST.json")


def test_of_two_attempts_at_a_step_one_stays_and_of_the_newest_both(run: Run, folder: Path) -> None:
    for step in (1, 2, 3):
        for attempt in ("a", "b"):
            checkpoint(run, folder, step, attempt)
    gone = {deletion.path[-10:] for deletion in plan_retention(run, Keep(2, 0), {1}, NOW)}
    assert gone == {"00000001/b", "00000002/b"}


def test_of_two_attempts_at_a_step_the_whole_one_stays(run: Run, folder: Path) -> None:
    for step in (1, 2):
        for attempt in ("a", "b"):
            checkpoint(run, folder, step, attempt)
    run.store.delete("runs/local/checkpoints/step-00000001/a/weights")
    assert plan_retention(run, Keep(2, 0), set(), NOW) == []


def test_damaged_checkpoints_push_no_good_one_out(run: Run, folder: Path) -> None:
    for step in range(1, 6):
        checkpoint(run, folder, step)
    for step in (3, 4, 5):
        run.store.put(f"{Checkpoint(run.run_id, step, 'a').path}/weights", b"short")
    assert plan_retention(run, Keep(2, 0), set(), NOW) == []
    for step in (6, 7):
        checkpoint(run, folder, step)
    gone = sorted(deletion.path[-10:] for deletion in plan_retention(run, Keep(2, 0), set(), NOW))
    assert gone == [f"0000000{step}/a" for step in (1, 2, 3, 4, 5)]


def test_two_plans_carried_out_one_after_the_other_keep_the_same(run: Run, folder: Path) -> None:
    for step in range(1, 6):
        checkpoint(run, folder, step)
    first, second = (plan_retention(run, Keep(2, 0), set(), NOW) for _ in range(2))
    carry_out(run.store, first)
    carry_out(run.store, second)
    assert len(list_artifacts(run.store, "")) == 2


# What killed writers leave

STATE = [
    "runs/local/preparation/k/images/a.png", "runs/local/dataset.json", "runs/local/status.json", "runs/local/config.json",
    "runs/local/attempts/1.json", "runs/local/COMPLETE.json", "registry/pixels/champion.json", "cache/captions/blip/1.jsonl",
    "datasets/raw/photo.jpg", "datasets/raw/more/photo.jpg", "notes.txt",
]  # fmt: skip
DEBRIS = {
    "runs/local/checkpoints/step-00000001/a": ["weights", "WRITER-0123456789abcdef"],
    "runs/local/lora": ["weights", "README.md"],
    "runs/local/images/0123": ["grid.png"],
    "datasets/pixels/0123456789abcdef": ["imagefolder/train/1.png", "report/index.html"],
    "cache/latents/abcdef/0123456789abcdef": ["rows.arrow"],
}


def put_all(store: LocalStore, keys: Iterable[str]) -> None:
    for key in keys:
        store.put(key, b"1")


def test_files_without_a_manifest_go_after_a_day_and_state_never_does(store: LocalStore, folder: Path) -> None:
    put_all(store, STATE)
    put_all(store, [f"{path}/{name}" for path, names in DEBRIS.items() for name in names])
    whole = publish_version(store, folder, kind="dataset", prefix="datasets/pixels").path
    assert plan_sweep(store, NOW) == []
    plan = plan_sweep(store, LATER)
    assert {deletion.path: len(deletion.keys) for deletion in plan} == {k: len(names) for k, names in DEBRIS.items()}
    carry_out(store, plan)
    assert keys_of(store) == {*STATE, f"{whole}/weights", f"{whole}/MANIFEST.json"}


def test_a_writer_that_is_still_writing_keeps_its_oldest_files(store: LocalStore) -> None:
    put_all(store, ["runs/local/lora/old", "runs/local/lora/new"])
    os.utime(store.path("runs/local/lora/old"), (time.time() - 90_000,) * 2)
    assert plan_sweep(store, NOW) == []


def test_a_writer_that_comes_back_after_the_plan_keeps_its_files(store: LocalStore, folder: Path) -> None:
    put_all(store, ["runs/local/lora/old", "runs/local/lora/weights"])
    for name in ("old", "weights"):
        os.utime(store.path(f"runs/local/lora/{name}"), (time.time() - 90_000,) * 2)
    plan = plan_sweep(store, NOW)
    assert len(plan) == 1
    publish(store, folder, kind="lora", path="runs/local/lora")
    carry_out(store, plan)
    assert verify(store, "runs/local/lora")


def test_what_a_writer_left_that_yielded_goes_after_a_day_and_the_artifact_stays(
    store: LocalStore, folder: Path
) -> None:
    publish(store, folder, kind="lora", path="runs/local/lora")
    put_all(
        store, [f"runs/local/lora/{name}" for name in ("WRITER-0123456789abcdef", "FILES-0123456789abcdef/weights")]
    )
    assert plan_sweep(store, NOW) == []
    carry_out(store, plan_sweep(store, LATER))
    assert keys_of(store) == {"runs/local/lora/weights", "runs/local/lora/MANIFEST.json"}


def test_temporary_files_of_a_killed_process_go_after_a_day(store: LocalStore) -> None:
    store.put("notes.txt", b"1")
    left = store.root / ".sdlora-tmp-0123"
    left.write_bytes(bytes(10))
    assert plan_sweep(store, NOW) == []
    [deletion] = plan_sweep(store, LATER)
    assert deletion.bytes == 10
    carry_out(store, [deletion])
    assert not left.exists()


def test_files_beside_a_claimed_path_are_found_by_their_manifest(store: LocalStore, folder: Path) -> None:
    put_all(store, ["runs/local/lora/WRITER-0123456789abcdef", "runs/local/lora/weights"])  # of one that died
    artifact = publish(store, folder, kind="lora", path="runs/local/lora")
    assert artifact.manifest.folder == f"FILES-{artifact.manifest.version}"
    assert store.get("runs/local/lora/weights") == b"1"
    carry_out(store, plan_sweep(store, LATER))
    assert verify(store, "runs/local/lora")
    assert len(keys_of(store)) == 2


def test_another_attempt_at_the_same_recipe_yields_and_another_recipe_is_refused(
    store: LocalStore, folder: Path, tmp_path: Path
) -> None:
    first = publish(store, folder, kind="lora", path="runs/local/lora", settings={"seed": 1})
    (tmp_path / "made/weights").write_bytes(b"a pixel differs")
    assert publish(store, folder, kind="lora", path="runs/local/lora", settings={"seed": 1}) == first
    with pytest.raises(BadConfiguration, match="RUN_ID"):
        publish(store, folder, kind="lora", path="runs/local/lora", settings={"seed": 2})
