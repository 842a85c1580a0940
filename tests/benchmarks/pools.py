"""Pools of measurements: LoRAs of known quality, really trained on the miniature and really drawn with.

The data set are all subjects of the miniature in 8-bit style; some hundred of them are held out. good: the profile of the
miniature; it is judged at strength 0.7 as well, where it draws less of the style and follows the prompts more. useless: weights
of the same size and no direction, which change every picture and teach nothing. other captions: trained on captions that belong
to other images. noise: trained on the images with their pixels shuffled.
"""

from pathlib import Path

import torch
from PIL import Image

from service.artifacts.fetching import fetch
from service.artifacts.kinds import evaluation, measurements
from service.artifacts.kinds.measurements import Measurements
from service.artifacts.publishing import exists
from service.artifacts.runs import Run
from service.jobs.data_prep import data_prep
from service.jobs.evaluate import evaluate
from service.jobs.train import train
from service.logs import configure_logs
from service.miniature import corpus
from service.settings.data_prep import DataPrepSettings
from service.settings.evaluate import EvaluateSettings
from service.settings.train import TrainSettings
from service.storage.interface import ObjectStore
from service.storage.opening import open_store
from tests import changed_dataset
from tests.changed_dataset import other_captions, shuffled_pixels
from tests.changed_lora import Change, publish_changed

HELD_OUT_SHARE = 0.45
"""Nearly half: a pool of few prompts would be a poor population."""
COLOURS = 16
WEAKER = 0.7


def pools_in(folder: Path, package: Path) -> dict[str, Measurements]:
    """The pools of a folder, by the name of the LoRA; what is there already is not made again.

    package: the archive of emoji that the miniature was made from, see `service.miniature.build`.
    """
    configure_logs("json")
    places = {"artifacts_uri": str(folder / "artifacts"), "work_dir": folder / "work", "model_base": "miniature"}
    store = open_store(places["artifacts_uri"])
    draw_subjects(package, folder / "subjects")
    data_prep(
        DataPrepSettings(
            source="folder",
            folder=str(folder / "subjects"),
            limit=1000,
            validation_share=HELD_OUT_SHARE,
            run_id="dataset",
            **places,
        )
    )
    dataset = Run(store, "dataset").dataset()
    work_dir = folder / "work"
    train(TrainSettings(run_id="good", dataset=dataset, profile="miniature", **places))
    if not exists(store, "runs/useless/lora"):
        publish_changed(store, "runs/good/lora", "useless", without_direction(), work_dir)
    for name, change in (("other-captions", other_captions), ("noise", shuffled_pixels)):
        changed = changed_dataset.publish_changed(store, dataset, name, change, work_dir)
        train(TrainSettings(run_id=name, dataset=changed, profile="miniature", **places))
    return {
        f"good, at strength {WEAKER}": _measured(store, "good", dataset, places, scales=[WEAKER]),
        **{name: _measured(store, name, dataset, places) for name in ("good", "useless", "other-captions", "noise")},
    }


def draw_subjects(package: Path, folder: Path) -> None:
    """Writes the subjects of the miniature as its samples are: on a raster, with few colours."""
    folder.mkdir(parents=True, exist_ok=True)
    for subject in (emoji for emoji in corpus.read_corpus(package) if emoji.subject):
        Image.fromarray(corpus.pixelate(subject.pixels, colours=COLOURS)).save(folder / f"{subject.key}.png")


def without_direction() -> Change:
    """Puts noise of the same size in the place of each tensor."""
    generator = torch.Generator().manual_seed(0)
    return lambda _, weights: torch.randn(weights.shape, generator=generator) * weights.std()


def _measured(
    store: ObjectStore, run_id: str, dataset: str, places: dict[str, object], **other: object
) -> Measurements:
    drawing = {"steps": 20, "guidance": 2, "variations": 2, "max_prompts": 100, "batch_size": 30}
    settings = EvaluateSettings(run_id=run_id, dataset=dataset, **drawing, **places, **other)
    found = evaluation.read_json(fetch(store, evaluate(settings), settings.work_dir))
    assert found.measurements is not None
    return measurements.read_arrays(fetch(store, found.measurements, settings.work_dir))
