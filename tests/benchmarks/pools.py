"""Pools of measurements: LoRAs of known quality, really trained on the miniature and really drawn with.

good: the profile of the miniature. useless: the same with its weights at a fiftieth, which draws all but what the base does.
random: weights of the same size and no direction, which changes every picture and teaches nothing. other captions: trained on
captions that belong to other images. noise: trained on the images with their pixels shuffled.
"""

from pathlib import Path

import torch

from service.artifacts.fetching import fetch
from service.artifacts.kinds import evaluation, measurements
from service.artifacts.kinds.measurements import Measurements
from service.artifacts.publishing import exists
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
from tests import changed_dataset
from tests.changed_dataset import other_captions, shuffled_pixels
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
    for name, change in (("other-captions", other_captions), ("noise", shuffled_pixels)):
        changed = changed_dataset.publish_changed(store, dataset, name, change, folder / "work")
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
