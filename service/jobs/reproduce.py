"""`sdlora reproduce`: an evaluation, and the training behind it, once more from the manifests; which hashes are the same?"""

from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from service import stopping
from service.artifacts import layout
from service.artifacts.copying import copy_artifact
from service.artifacts.fetching import fetch
from service.artifacts.history import History, append
from service.artifacts.kinds.dataset import Dataset
from service.artifacts.kinds.evaluation import VOTES_FOLDER, read
from service.artifacts.kinds.lora import Lora
from service.artifacts.kinds.registry import Entry
from service.artifacts.manifest import Manifest
from service.artifacts.notes import Config
from service.artifacts.publishing import list_artifacts, read_manifest
from service.exits import BadConfiguration, BadData
from service.jobs.evaluate import evaluate
from service.jobs.train import train
from service.lineage.reproduction import Made, ancestry, reproduction
from service.lineage.reproduction_text import summary, tables
from service.outcome import add_facts
from service.settings.evaluate import EvaluateSettings
from service.settings.identity import settings_of
from service.settings.models import FamilySettings
from service.settings.reproduce import ReproduceSettings
from service.settings.train import TrainSettings
from service.storage.interface import NotFound, ObjectStore
from service.storage.opening import open_store
from service.terminal import tell

SHAPING = ("gradient_accumulation_steps", "gradient_checkpointing", "log_every", "sample_every", "checkpoint_every")
"""Settings that decide nothing and yet show in the bytes, in last digits or in curves: as they were, where that is known."""

OF_THEN = "champion-of-then"
"""Name of the model in the scratch store whose champion is the one against which the evaluation was made."""

log = structlog.get_logger(__name__)


def reproduce(settings: ReproduceSettings) -> None:
    """Makes everything from the data set on again in a store of its own, and tells what is the same.

    Raises BadData, after telling it, when a file came out with another hash. A stopped one goes on where it was.
    """
    if settings.evaluation is None:
        raise BadConfiguration("reproduce needs an evaluation: its path as the first word, or REPRODUCE_EVALUATION")
    store = open_store(settings.artifacts_uri)
    then = made(store, settings.evaluation, settings.work_dir)
    scratch = scratch_store(settings, then)
    log.info("making it again", evaluation=then.path, store=scratch.uri)

    for path, manifest in then.manifests.items():
        if manifest.kind == Dataset.KIND or (manifest.kind == Lora.KIND and not trained_here(path)):
            copy_artifact(store, path, scratch, settings.work_dir, stopping.check)
    for path in mirrors(store, then):
        copy_artifact(store, path, scratch, settings.work_dir, stopping.check)
    places = {"artifacts_uri": scratch.uri, "work_dir": settings.work_dir, "log_format": settings.log_format}
    remarks = []
    for path, manifest in then.manifests.items():
        if manifest.kind == Lora.KIND and trained_here(path):
            train(training_settings(store, path, manifest, places))
        elif manifest.kind == Lora.KIND:
            remarks.append(f"{path} was trained elsewhere: it was taken as it is")
        stopping.check()
    votes = votes_of_then(store, then, settings.work_dir)
    again = evaluate(evaluation_settings(scratch, then, votes, places))

    found = reproduction(then, made(scratch, again, settings.work_dir), scratch.uri, remarks)
    add_facts(same=found.same, decision_then=found.decision_then, decision_now=found.decision_now)
    tell(found, tables, as_json=settings.as_json)
    if not found.same:
        raise BadData(f"{then.path} did not come out the same again: {summary(found)}")


def made(store: ObjectStore, path: str, work_dir: Path) -> Made:
    """An evaluation and what it rests on. Raises NotFound without one, BadConfiguration for anything else."""
    return Made(path=path, decision=read(store, path, work_dir).decision, manifests=ancestry(store, path))


def mirrors(store: ObjectStore, then: Made) -> list[str]:
    """Paths of the models that it was made with, as far as the store has them: the jobs look for them in their own store."""
    recipes = [manifest.settings for manifest in then.manifests.values()]
    fields = FamilySettings.known_models()
    named = {(recipe.get(field), recipe.get(f"{field}_revision")) for recipe in recipes for field in fields}
    stored = list_artifacts(store, layout.Models().path)
    return [path for path in stored if (place := layout.Model.parse(path)) and (place.model, place.revision) in named]


def scratch_store(settings: ReproduceSettings, then: Made) -> ObjectStore:
    """The store in which it is made again. Raises BadConfiguration for the one in which it was made: all is done there."""
    default = settings.work_dir / "reproduced" / then.manifests[then.path].version
    scratch = open_store(settings.store or str(default))
    if scratch.uri == open_store(settings.artifacts_uri).uri:
        raise BadConfiguration(
            "REPRODUCE_STORE is ARTIFACTS_URI, where everything is there already; name another place"
        )
    return scratch


def trained_here(lora: str) -> bool:
    """Whether the LoRA is one of a run, which can be trained again."""
    return layout.Lora.parse(lora) is not None


def training_settings(store: ObjectStore, path: str, manifest: Manifest, places: dict[str, Any]) -> TrainSettings:
    """Those with which the LoRA at `path` was trained."""
    place = layout.Lora.parse(path)
    assert place is not None, path
    how: dict[str, Any] = {}
    with suppress(NotFound, BadData):
        noted = Config.read(store, place.run).model_dump()
        how = {name: noted[name] for name in SHAPING if name in noted}
    return settings_of(TrainSettings, manifest.settings, run_id=place.run, **how, **places)


def votes_of_then(store: ObjectStore, then: Made, work_dir: Path) -> list[str]:
    """The files of votes that the evaluation kept, on this machine."""
    folder = fetch(store, then.path, work_dir, stopping.check) / VOTES_FOLDER
    return [str(file) for file in sorted(folder.glob("*.json"))]


def evaluation_settings(scratch: ObjectStore, then: Made, votes: list[str], places: dict[str, Any]) -> EvaluateSettings:
    """Those with which the evaluation was made; the champion of then becomes that of a model of the scratch store.

    As it came out there: its weights may have another hash. One that the evaluation does not rest on is left out.
    """
    place = layout.Evaluation.parse(then.path)
    if place is None:
        raise BadConfiguration(f"{then.path} is no evaluation of a run")
    recipe = then.manifests[then.path].settings
    champion = recipe.get("champion")
    if champion and champion["lora"] in then.manifests:
        history = History.read(scratch, OF_THEN)
        if history.champion is None:
            version = read_manifest(scratch, champion["lora"]).version
            append(scratch, history, Entry.made_now(**{**champion, "version": version}, promotion=1))
        recipe = {**recipe, "champion": OF_THEN}
    else:
        recipe = {**recipe, "champion": None}
    recipe = {**recipe, "votes": votes or None}  # there are hashes in it, which name no file
    return settings_of(EvaluateSettings, recipe, run_id=place.run, fail_unless_promoted=False, **places)
