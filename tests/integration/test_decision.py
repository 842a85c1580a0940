"""The decision is earned: a LoRA that learned the style is promoted, one that learned nothing or noise is not."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from service.artifacts.fetching import fetch
from service.artifacts.kinds.evaluation import Evaluation, read_json
from service.artifacts.publishing import publish, publish_version, read_manifest
from service.artifacts.runs import Run
from service.exits import ExitCode
from service.jobs.evaluate import evaluate
from service.jobs.train import train
from service.settings.demo import DEMO_VARIABLES
from service.settings.evaluate import EvaluateSettings
from service.settings.train import TrainSettings
from service.storage.interface import ObjectStore
from service.storage.opening import open_store
from tests.integration.chain import finish

WEIGHTS = "pytorch_lora_weights.safetensors"


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


def decision_on(store: ObjectStore, run_id: str, **fewer: int) -> Evaluation:
    path = evaluate(EvaluateSettings(run_id=run_id, **fewer))
    return read_json(fetch(store, path, Path("unused")))


def test_the_trained_lora_is_promoted(store: ObjectStore) -> None:
    found = decision_on(store, "demo")
    assert found.decision == "promote", found.reason


def test_a_lora_whose_b_is_zero_is_not_promoted(store: ObjectStore, tmp_path: Path) -> None:
    trained = read_manifest(store, "runs/demo/lora")
    shutil.copytree(fetch(store, "runs/demo/lora", tmp_path), tmp_path / "zero")
    (tmp_path / "zero" / "MANIFEST.json").unlink()
    with safe_open(tmp_path / "zero" / WEIGHTS, "pt") as file:
        tensors = {key: file.get_tensor(key) * (0 if ".lora.up." in key else 1) for key in file.keys()}  # noqa: SIM118 - not a mapping
        metadata = file.metadata()
    save_file(tensors, tmp_path / "zero" / WEIGHTS, metadata)
    publish(
        store,
        tmp_path / "zero",
        kind="lora",
        path="runs/zero/lora",
        parents=trained.parents,
        settings=trained.settings,
    )
    found = decision_on(store, "zero", max_prompts=4, steps=4)
    assert found.decision == "reject"
    assert "changes 0.0% of the images" in found.reason


def test_a_lora_trained_on_shuffled_noise_is_not_promoted(store: ObjectStore, tmp_path: Path) -> None:
    dataset = noise_dataset(store, Run(store, "demo").dataset(), tmp_path)
    train(TrainSettings(run_id="noise", dataset=dataset))
    found = decision_on(store, "noise")
    assert found.decision != "promote", found.reason


def noise_dataset(store: ObjectStore, path: str, folder: Path) -> str:
    """The data set with the pixels of its training images shuffled; captions and held-out images are the true ones."""
    shutil.copytree(fetch(store, path, folder), folder / "noise")
    (folder / "noise" / "MANIFEST.json").unlink()
    split = folder / "noise" / "imagefolder" / "train"
    rng = np.random.default_rng(0)
    with (split / "metadata.csv").open(newline="") as lines:
        names = [row["file_name"] for row in csv.DictReader(lines)]
    for name in names:
        pixels = np.asarray(Image.open(split / name).convert("RGB"))
        shuffled = rng.permutation(pixels.reshape(-1, 3)).reshape(pixels.shape)
        Image.fromarray(shuffled).save(split / name)
    settings = read_manifest(store, path).settings
    return publish_version(store, folder / "noise", kind="dataset", prefix="datasets/noise", settings=settings).path
