"""`sdlora demo`: the whole chain on the miniature."""

import os
from pathlib import Path

import structlog

from service import stopping
from service.artifacts.fetching import fetch
from service.artifacts.kinds.evaluation import PAGE_FILE, read_json
from service.artifacts.kinds.images import GRID
from service.jobs.data_prep import data_prep
from service.jobs.evaluate import evaluate
from service.jobs.infer import infer
from service.jobs.train import train
from service.settings.data_prep import DataPrepSettings
from service.settings.demo import DEMO_VARIABLES, DemoSettings
from service.settings.evaluate import EvaluateSettings
from service.settings.infer import InferSettings
from service.settings.train import TrainSettings
from service.storage.opening import open_store

log = structlog.get_logger(__name__)


def demo(settings: DemoSettings) -> str:
    """Data set, LoRA, images and evaluation of one run; returns the path of the last. A finished stage is not done again."""
    for name, value in DEMO_VARIABLES.items():
        os.environ.setdefault(name, value)
    given = settings.model_dump(exclude_unset=True)

    data_prep(DataPrepSettings(**given))
    stopping.check()
    train(TrainSettings(**given))
    stopping.check()
    images = infer(InferSettings(**given))
    stopping.check()
    evaluation = evaluate(EvaluateSettings(**given))

    store = open_store(settings.artifacts_uri)
    found = read_json(fetch(store, evaluation, settings.work_dir))
    log.info(
        "demo finished",
        decision=found.decision,
        reason=found.reason,
        picture=_place(store.uri, images, GRID),
        page=_place(store.uri, evaluation, PAGE_FILE),
    )
    return evaluation


def _place(root: str, *parts: str) -> str:
    """Where a person finds a file: a path on this machine, or an s3:// URI."""
    return "/".join([root, *parts]) if "://" in root else str(Path(root, *parts).resolve())
