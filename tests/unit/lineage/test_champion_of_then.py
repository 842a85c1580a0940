"""Against whom an evaluation that is made again is decided: the champion of then, as it came out again."""

from pathlib import Path
from typing import Any

from service.artifacts.history import History
from service.artifacts.publishing import read_manifest
from service.jobs.reproduce import OF_THEN, evaluation_settings
from service.lineage.reproduction import Made, ancestry
from service.settings.evaluate import EvaluateSettings
from service.settings.identity import identity
from service.storage.interface import ObjectStore
from service.storage.opening import open_store
from tests.releases import evaluated, trained

OLD = "runs/old/lora"


def made(store: ObjectStore, champion: dict[str, Any], *, measured: bool) -> Made:
    trained(store, "new")
    recipe = {**identity(EvaluateSettings()), "lora": "runs/new/lora", "champion": champion}
    path = evaluated(store, "new", settings=recipe)
    manifests = ancestry(store, path)
    if measured:
        manifests[OLD] = read_manifest(store, OLD)
    return Made(path, "promote", manifests)


def test_the_champion_of_then_reigns_again_at_its_strength_in_the_version_that_it_has_now(tmp_path: Path) -> None:
    store, scratch = (open_store(str(tmp_path / name)) for name in ("then", "scratch"))
    trained(store, "old")
    then = made(store, {"lora": OLD, "version": "of-then", "scale": 0.7}, measured=True)
    trained(scratch, "old")
    for _ in range(2):  # one that was stopped goes on
        again = evaluation_settings(scratch, then, [], {})
    assert again.champion == OF_THEN
    [entry] = History.read(scratch, OF_THEN).entries
    assert (entry.lora, entry.version, entry.scale) == (OLD, read_manifest(scratch, OLD).version, 0.7)


def test_a_champion_that_was_only_named_then_is_not_looked_for(tmp_path: Path) -> None:
    store, scratch = (open_store(str(tmp_path / name)) for name in ("then", "scratch"))
    then = made(store, {"lora": OLD, "version": "of-then"}, measured=False)
    assert evaluation_settings(scratch, then, [], {}).champion is None
    assert not History.read(scratch, OF_THEN).entries
