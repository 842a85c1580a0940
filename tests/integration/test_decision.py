"""The decision is earned: a LoRA that learned the style is promoted, one that learned nothing or noise is not."""

from pathlib import Path
from typing import Any

import pytest

from service.artifacts.fetching import fetch
from service.artifacts.kinds.evaluation import Evaluation, read_json
from service.artifacts.runs import Run
from service.exits import ExitCode
from service.jobs.evaluate import evaluate
from service.jobs.promote import promote
from service.jobs.train import train
from service.settings.demo import DEMO_VARIABLES
from service.settings.evaluate import EvaluateSettings
from service.settings.promote import PromoteSettings
from service.settings.train import TrainSettings
from service.storage.interface import ObjectStore
from service.storage.opening import open_store
from tests import changed_dataset
from tests.changed_dataset import shuffled_pixels
from tests.changed_lora import publish_changed, scaled
from tests.integration.chain import finish

WEAKER = 0.3
"""Strength at which the demo's LoRA is nearer to the style than the base, and farther than it is itself."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole demo, as `make demo` runs it."""
    folder = tmp_path_factory.mktemp("demo")
    assert finish("demo", folder, {"HF_HUB_OFFLINE": "1"}).code == ExitCode.DONE
    return folder


@pytest.fixture
def store(demo: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    for name, value in DEMO_VARIABLES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ARTIFACTS_URI", str(demo / "artifacts"))
    monkeypatch.setenv("WORK_DIR", str(demo / "work"))
    return open_store(str(demo / "artifacts"))


def decision_on(store: ObjectStore, run_id: str, **changed: Any) -> Evaluation:
    path = evaluate(EvaluateSettings(run_id=run_id, **changed))
    return read_json(fetch(store, path, Path("unused")))


def test_the_trained_lora_is_promoted(store: ObjectStore) -> None:
    found = decision_on(store, "demo")
    assert found.decision == "promote", found.reason


def test_a_lora_that_beats_the_base_and_not_the_champion_is_not_promoted(store: ObjectStore, tmp_path: Path) -> None:
    publish_changed(store, "runs/demo/lora", "weaker", scaled(WEAKER), tmp_path)
    alone = decision_on(store, "weaker")
    assert (alone.decision, alone.champion) == ("promote", None), alone.reason

    best = evaluate(EvaluateSettings(run_id="demo"))
    promote(PromoteSettings(model="pixels", evaluation=best))
    found = decision_on(store, "weaker", champion="pixels")
    assert found.decision == "reject", found.reason
    assert "the style is farther away than the champion's" in found.reason
    against, itself = found.finding("champion_style"), read_json(fetch(store, best, tmp_path)).finding("style")
    assert (against.base, against.lora) == (itself.lora, alone.finding("style").lora), "what is known of both already"


def test_a_lora_whose_b_is_zero_is_not_promoted(store: ObjectStore, tmp_path: Path) -> None:
    publish_changed(store, "runs/demo/lora", "zero", scaled(0), tmp_path)
    found = decision_on(store, "zero", max_prompts=4, steps=4)
    assert found.decision == "reject"
    assert "changes 0.0% of the images" in found.reason


def test_a_lora_trained_on_shuffled_noise_is_not_promoted(store: ObjectStore, tmp_path: Path) -> None:
    dataset = changed_dataset.publish_changed(store, Run(store, "demo").dataset(), "noise", shuffled_pixels, tmp_path)
    train(TrainSettings(run_id="noise", dataset=dataset))
    found = decision_on(store, "noise")
    assert found.decision != "promote", found.reason
