"""Pools of measurements: LoRAs of known quality, really trained on the miniature and really drawn with.

good: the profile of the miniature. useless: the same with its weights at a fiftieth, which draws all but what the base does.
random: weights of the same size and no direction, which changes every picture and teaches nothing. other captions: trained on
captions that belong to other images. noise: trained on the images with their pixels shuffled.
"""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from service.artifacts.fetching import fetch
from service.artifacts.kinds import evaluation, measurements
from service.artifacts.kinds.measurements import Measurements
from service.artifacts.publishing import exists, publish_version, read_manifest
from service.artifacts.runs import Run
from service.jobs.data_prep import data_prep
from service.jobs.evaluate import evaluate
from service.jobs.train import train
from service.logs import configure_logs
from service.settings.data_prep import DataPrepSettings
from service.settings.evaluate import EvaluateSettings
from service.settings.train import TrainSettings
from service.storage.interface import ObjectStore
from service.storage.opening import open_store
from tests.changed_lora import Change, publish_changed, scaled

HELD_OUT_SHARE = 0.5
"""Half of the samples: a pool of few prompts would be a poor population."""
USELESS_SCALE = 0.02


def pools_in(folder: Path) -> dict[str, Measurements]:
    """The pools of a folder, by the name of the LoRA; what is there already is not made again."""
    configure_logs("json")
    places = {"artifacts_uri": str(folder / "artifacts"), "work_dir": folder / "work", "model_base": "miniature"}
    store = open_store(places["artifacts_uri"])
    data_prep(
        DataPrepSettings(
            source="folder", folder="miniature", validation_share=HELD_OUT_SHARE, run_id="dataset", **places
        )
    )
    dataset = Run(store, "dataset").dataset()
    for name, change in (("other-captions", _other_captions), ("noise", _shuffled_pixels)):
        changed = _changed_dataset(store, dataset, folder / "work" / name, name, change)
        train(TrainSettings(run_id=name, dataset=changed, profile="miniature", **places))
    train(TrainSettings(run_id="good", dataset=dataset, profile="miniature", **places))
    generator = torch.Generator().manual_seed(0)
    changes: dict[str, Change] = {
        "useless": scaled(USELESS_SCALE),
        "random": lambda _, weights: torch.randn(weights.shape, generator=generator) * weights.std(),
    }
    for name, change_weights in changes.items():
        if not exists(store, f"runs/{name}/lora"):
            publish_changed(store, "runs/good/lora", name, change_weights, folder / "work")
    return {
        name: _measured(store, name, dataset, places)
        for name in ("good", "useless", "random", "other-captions", "noise")
    }


def _measured(store: ObjectStore, run_id: str, dataset: str, places: dict[str, object]) -> Measurements:
    settings = EvaluateSettings(
        run_id=run_id, dataset=dataset, steps=20, guidance=2, variations=2, max_prompts=100, batch_size=30, **places
    )
    found = evaluation.read_json(fetch(store, evaluate(settings), settings.work_dir))
    assert found.measurements is not None
    return measurements.read_arrays(fetch(store, found.measurements, settings.work_dir))


def _changed_dataset(store: ObjectStore, path: str, folder: Path, name: str, change: Callable[[Path], None]) -> str:
    """The data set with its training images changed by `change`, which takes the split's folder."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(fetch(store, path, folder.parent), folder)
    (folder / "MANIFEST.json").unlink()
    change(folder / "imagefolder" / "train")
    settings = read_manifest(store, path).settings
    return publish_version(store, folder, kind="dataset", prefix=f"datasets/{name}", settings=settings).path


def _other_captions(split: Path) -> None:
    with (split / "metadata.csv").open(newline="", encoding="utf-8") as lines:
        header, *rows = list(csv.reader(lines))
    captions = [row[1] for row in rows]
    with (split / "metadata.csv").open("w", newline="", encoding="utf-8") as sink:
        writer = csv.writer(sink, lineterminator="\n")
        writer.writerow(header)
        # Shifted rather than shuffled: no image keeps its own.
        writer.writerows([row[0], captions[(i + len(rows) // 2) % len(rows)], *row[2:]] for i, row in enumerate(rows))


def _shuffled_pixels(split: Path) -> None:
    rng = np.random.default_rng(0)
    for file in sorted(split.glob("*.png")):
        pixels = np.asarray(Image.open(file).convert("RGB"))
        Image.fromarray(rng.permutation(pixels.reshape(-1, 3)).reshape(pixels.shape)).save(file)
