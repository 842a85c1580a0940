"""Whether what was made again is the same, by the manifests alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from service.artifacts.copying import copy_artifact
from service.artifacts.fetching import verify
from service.artifacts.manifest import Manifest, describe
from service.artifacts.publishing import publish
from service.exits import BadConfiguration
from service.lineage.reproduction import Made, Part, Reproduction, ancestry, reproduction
from service.lineage.reproduction_text import summary, tables
from service.settings.evaluate import EvaluateSettings
from service.settings.identity import identity, settings_of
from service.settings.train import TrainSettings
from service.storage.local import LocalStore
from service.storage.parallel import never_stop

KINDS = {"lora": "runs/r/lora", "images": "runs/r/images/0", "measurements": "runs/r/measurements/0",
         "evaluation": "runs/r/evaluation/0"}  # fmt: skip


def made(folder: Path, *, decision: Any = "promote", **changed: str) -> Made:
    """An evaluation with what it rests on; `changed`: other content of a kind's file."""
    manifests: dict[str, Manifest] = {}
    for kind, path in KINDS.items():
        (folder / kind).mkdir(parents=True)
        (folder / kind / "file").write_text(changed.get(kind, kind))
        manifests[path] = describe(folder / kind, kind=kind, parents=list(manifests)[-1:], settings={})
    return Made(path=KINDS["evaluation"], decision=decision, manifests=manifests)


def test_equal_files_are_the_same_and_nothing_is_remarked(tmp_path: Path) -> None:
    found = reproduction(made(tmp_path / "a"), made(tmp_path / "b"), "scratch", [])
    assert found.same
    assert [(part.name, part.same) for part in found.parts] == [
        ("LoRA", True), ("pictures", True), ("measurements", True), ("evaluation", True),
    ]  # fmt: skip
    assert found.remarks == []
    assert Reproduction.from_bytes(found.to_bytes(), "here") == found


def test_a_file_with_another_hash_is_named_with_what_may_be_the_cause(tmp_path: Path) -> None:
    then = made(tmp_path / "a")
    old = then.manifests[then.path].model_copy(
        update={"libraries": {"torch": "1.0", "numpy": "1.0"}, "code_version": "0"}
    )
    then = replace(then, manifests={**then.manifests, then.path: old})
    found = reproduction(then, made(tmp_path / "b", decision="hold", lora="other"), "scratch", ["known before"])
    assert not found.same
    assert [part.different for part in found.parts] == [["file"], [], [], []]
    assert found.remarks[0] == "known before"
    assert any(remark.startswith("torch was 1.0 and is ") for remark in found.remarks)
    assert any(remark.startswith("the code was 0 and is ") for remark in found.remarks)
    assert summary(found) == "came out with other hashes: LoRA; the decision was promote and is hold"
    console = Console(width=160)
    with console.capture() as shown:
        console.print(tables(found))
    assert "other hashes: file" in shown.get()


def test_of_many_files_with_other_hashes_some_are_named_and_the_others_are_counted() -> None:
    part = Part(name="pictures", then="a", now="b", files=6, different=["1.png", "2.png", "3.png", "4.png", "5.png"])
    found = Reproduction(evaluation="e", store="s", parts=[part], decision_then="hold", decision_now="hold", remarks=[])
    console = Console(width=160)
    with console.capture() as shown:
        console.print(tables(found))
    assert "other hashes: 1.png, 2.png, 3.png and 2 more" in shown.get()


def test_what_is_gone_or_was_not_made_again_is_not_the_same(tmp_path: Path) -> None:
    then, now = made(tmp_path / "a"), made(tmp_path / "b")
    without = {path: manifest for path, manifest in then.manifests.items() if manifest.kind != "images"}
    found = reproduction(replace(then, manifests=without), now, "scratch", [])
    assert [part.same for part in found.parts] == [True, False, True, True]


def test_what_something_rests_on_is_followed_and_what_is_gone_is_passed_over(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "artifacts")
    (tmp_path / "x").mkdir()
    (tmp_path / "x/file").write_text("x")
    for path, parents in (("a", []), ("b", ["a", "gone"]), ("c", ["b", "a"])):
        publish(store, tmp_path / "x", kind="lora", path=path, parents=parents)
    assert list(ancestry(store, "c")) == ["c", "b", "a"]


def test_an_artifact_is_copied_to_another_store_as_it_is(tmp_path: Path) -> None:
    store, other = LocalStore(tmp_path / "one"), LocalStore(tmp_path / "other")
    (tmp_path / "x").mkdir()
    (tmp_path / "x/file").write_text("x")
    publish(store, tmp_path / "x", kind="lora", path="runs/r/lora", settings={"rank": 4})
    for _ in range(2):
        copy_artifact(store, "runs/r/lora", other, tmp_path / "work", never_stop)
    assert verify(other, "runs/r/lora") == verify(store, "runs/r/lora")
    assert other.get("runs/r/lora/MANIFEST.json") == store.get("runs/r/lora/MANIFEST.json")


def test_the_settings_of_a_recipe_are_those_that_made_it_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for settings in (TrainSettings(rank=7, profile="recommended", model_base="miniature"), EvaluateSettings(steps=7)):
        recipe = identity(settings, lora_version="0")
        monkeypatch.setenv("TRAIN_RANK", "3")
        monkeypatch.setenv("EVALUATE_STEPS", "3")
        again = settings_of(type(settings), recipe, run_id="again")
        assert identity(again, lora_version="0") == recipe
        assert again.run_id == "again"


def test_what_a_recipe_does_not_know_has_the_value_of_then() -> None:
    recipe = identity(EvaluateSettings())
    del recipe["live_share"]
    assert settings_of(EvaluateSettings, recipe).live_share == 0.95


def test_a_recipe_that_this_version_does_not_take_is_refused_in_one_line() -> None:
    with pytest.raises(BadConfiguration, match=r"recipe of then has .*rank=0") as refused:
        settings_of(TrainSettings, {**identity(TrainSettings()), "rank": 0})
    assert "\n" not in str(refused.value)
