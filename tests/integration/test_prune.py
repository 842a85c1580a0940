"""`sdlora prune` tells before it deletes, deletes what it told, and keeps whatever somebody may still need."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.__main__ import run
from service.artifacts.publishing import list_artifacts, publish
from service.exits import ExitCode
from service.storage.interface import ObjectStore
from service.storage.opening import open_store

A_DAY_AND_A_HALF = 36 * 3600
Prune = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """A run `ours` with checkpoints at steps 1 to 8, and `theirs` with 1 to 4."""
    monkeypatch.setenv("ARTIFACTS_URI", str(tmp_path / "artifacts"))
    monkeypatch.setenv("RUN_ID", "ours")
    opened = open_store(str(tmp_path / "artifacts"))
    (tmp_path / "checkpoint").mkdir()
    for run_id, steps in (("ours", 8), ("theirs", 4)):
        for step in range(1, steps + 1):
            (tmp_path / "checkpoint" / "lora.bin").write_bytes(b"%d" % step * 1000)
            path = f"runs/{run_id}/checkpoints/step-{step:08d}/one"
            publish(opened, tmp_path / "checkpoint", kind="checkpoint", path=path)
    return opened


@pytest.fixture
def prune(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Prune:
    def pruned(**variables: str) -> list[dict[str, Any]]:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        code = run(["prune"])
        events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        assert code == ExitCode.DONE, events
        return events

    return pruned


def steps(store: ObjectStore, run_id: str = "ours") -> list[int]:
    return [int(path.split("/step-")[1].split("/")[0]) for path in list_artifacts(store, f"runs/{run_id}/checkpoints")]


def test_by_default_it_only_tells_what_it_would_delete_and_how_much_that_is(
    store: ObjectStore, prune: Prune, tmp_path: Path
) -> None:
    before = {entry.key: entry.size for entry in store.list("")}
    *told, total = prune(PRUNE_KEEP_LAST="3", OUTCOME_FILE=str(tmp_path / "outcome"))
    assert [event["event"] for event in told] == ["would delete"] * 5
    assert {entry.key for entry in store.list("")} == before.keys()
    assert total["bytes"] == sum(event["bytes"] for event in told) >= 5000
    assert "PRUNE_DRY_RUN=false" in total["next"]
    outcome = json.loads((tmp_path / "outcome").read_text())
    assert (outcome["dry_run"], outcome["items"], outcome["objects"]) == (True, 5, 10)
    assert outcome["bytes"] == total["bytes"]


def test_told_to_it_deletes_exactly_what_it_told(store: ObjectStore, prune: Prune) -> None:
    told = {event["path"] for event in prune(PRUNE_KEEP_LAST="3") if event["event"] == "would delete"}
    before = {entry.key for entry in store.list("")}
    prune(PRUNE_DRY_RUN="false")
    gone = before - {entry.key for entry in store.list("")}
    assert {key.rpartition("/")[0] for key in gone} == told
    assert steps(store) == [6, 7, 8]
    assert steps(store, "theirs") == [1, 2, 3, 4]
    assert prune()[-1]["items"] == 0


def test_every_nth_and_the_best_step_stay(store: ObjectStore, prune: Prune) -> None:
    store.put("runs/ours/status.json", json.dumps({"bestStep": 3, "step": 8}).encode())
    prune(PRUNE_DRY_RUN="false", PRUNE_KEEP_EVERY="4")
    assert steps(store) == [3, 4, 7, 8]


@pytest.mark.parametrize("lora", ["runs/ours/lora", "runs/ours/capped/step-00000007"])
def test_no_checkpoint_of_a_champion_goes(lora: str, store: ObjectStore, prune: Prune) -> None:
    store.put("registry/pixel-art/00000001-0123abcd.json", json.dumps({"lora": lora}).encode())
    prune(PRUNE_DRY_RUN="false", PRUNE_ALL_RUNS="true")
    assert steps(store) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert steps(store, "theirs") == [3, 4]


def test_nor_of_one_that_was_a_champion_before(store: ObjectStore, prune: Prune) -> None:
    for number, run_id in enumerate(("ours", "theirs"), 1):
        entry = json.dumps({"lora": f"runs/{run_id}/lora"}).encode()
        store.put(f"registry/pixel-art/{number:08d}-0123abcd.json", entry)
    store.put("registry/pixel-art/champion/README.md", b"a copy of the LoRA")
    prune(PRUNE_DRY_RUN="false", PRUNE_ALL_RUNS="true")
    assert steps(store) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert steps(store, "theirs") == [1, 2, 3, 4]


@pytest.mark.parametrize("name", ["00000001-0123abcd.json", "champion.json"])
def test_with_a_champion_that_cannot_be_read_nothing_is_deleted(
    name: str, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(f"registry/pixel-art/{name}", b"{")
    monkeypatch.setenv("PRUNE_DRY_RUN", "false")
    assert run(["prune"]) == ExitCode.BAD_DATA
    assert steps(store) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_over_all_runs_it_finds_what_killed_writers_left_long_ago_and_only_that(
    store: ObjectStore, prune: Prune, tmp_path: Path
) -> None:
    for name, age in (("old", A_DAY_AND_A_HALF), ("new", 0)):
        for key in (f"runs/{name}/drawing/0123456789ab/base/00000.png", f"runs/{name}/lora/weights.safetensors"):
            store.put(key, b"half a picture")
            file = tmp_path / "artifacts" / key
            os.utime(file, (file.stat().st_atime, file.stat().st_mtime - age))
    prune(PRUNE_DRY_RUN="false", PRUNE_ALL_RUNS="true", PRUNE_KEEP_LAST="8")
    left = {entry.key.split("/")[1] for entry in store.list("runs/")}
    assert left == {"ours", "theirs", "new"}


def test_a_run_that_is_not_there_is_missing_input_rather_than_nothing_to_do(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUN_ID", "oust")
    assert run(["prune"]) == ExitCode.MISSING_INPUT
    assert steps(store) != []
