"""`sdlora promote`: the LoRA of an evaluation becomes the champion of a model."""

from contextlib import suppress

import structlog

from service.artifacts import layout
from service.artifacts.champion_copy import refuse_copy
from service.artifacts.history import History
from service.artifacts.kinds import evaluation
from service.artifacts.kinds.evaluation import Evaluation
from service.artifacts.kinds.lora import Lora
from service.artifacts.kinds.lora import read as read_lora
from service.artifacts.kinds.registry import Entry
from service.artifacts.manifest import MANIFEST_NAME
from service.artifacts.notes import Complete
from service.artifacts.releasing import follow, release
from service.exits import BadData, MissingInput, Rejected
from service.lineage.withdrawn import withdrawn_images
from service.notification import notify_champion
from service.outcome import add_facts
from service.settings.promote import PromoteSettings
from service.storage.interface import NotFound, ObjectStore
from service.storage.opening import open_store

log = structlog.get_logger(__name__)


def promote(settings: PromoteSettings) -> str:
    """Appends an entry to the history of the model, and copies the LoRA. Returns the key of the champion's entry.

    Raises Rejected, with nothing changed, unless the evaluation says `promote`, was made against the champion of now, and no
    image of the data set was withdrawn; PROMOTE_FORCE overrules that, and the entry says so. What is the champion by this
    evaluation already stays.
    """
    store, model = open_store(settings.artifacts_uri), settings.named_model()
    path = settings.evaluation or newest_evaluation(store, settings.run_id)
    found = evaluation.read(store, path, settings.work_dir)
    lora = judged_lora(store, found, path)
    history = History.read(store, model)
    champion = history.champion
    if champion and champion.evaluation == path:
        log.info("already the champion", model=model, number=history.number, lora=champion.lora)
        follow(store, model, settings.work_dir)
        add_facts(model=model, champion=lora.path)
        return history.key(history.number)

    if lora.version in history.retired:
        raise Rejected(f"{lora.path} was withdrawn from the registry of {model}, for ever: promote another LoRA")
    objection = objection_to(found, path, lora, champion) or withdrawal_of(store, lora)
    if objection and not settings.force:
        raise Rejected(f"{objection}; nothing was changed (PROMOTE_FORCE, with a reason, overrules it)")
    entry = Entry.made_now(
        action="promote",
        lora=lora.path,
        version=lora.version,
        scale=found.scale,
        checkpoint=step_of(store, lora),
        evaluation=path,
        promotion=history.number + 1,
        previous=champion.lora if champion else None,
        reason=settings.force or settings.reason or found.reason,
        overruled=objection,
        by=settings.who(),
        image=settings.image or None,
    )
    key = release(store, history, entry, settings.work_dir)
    notify_champion(model, key, entry.model_dump(mode="json"))
    add_facts(model=model, champion=lora.path)
    return key


def newest_evaluation(store: ObjectStore, run_id: str) -> str:
    """The evaluation of the run that was published last. Raises MissingInput when there is none."""
    folder = layout.Evaluations(run_id).path
    manifests = [entry for entry in store.list(f"{folder}/") if entry.key.endswith(f"/{MANIFEST_NAME}")]
    if not manifests:
        raise MissingInput(
            f"run {run_id!r} has no evaluation in {store.uri}; run evaluate with the same RUN_ID first, or set "
            "PROMOTE_EVALUATION"
        )
    newest = max(manifests, key=lambda entry: (entry.modified, entry.key))
    return newest.key.removesuffix(f"/{MANIFEST_NAME}")


def judged_lora(store: ObjectStore, found: Evaluation, path: str) -> Lora:
    """The LoRA that the evaluation at `path` is of.

    Raises BadData when another one is there by now, BadConfiguration for the copy of a champion.
    """
    refuse_copy(found.lora)
    lora = read_lora(store, found.lora)
    judged = found.settings.get("lora_version")
    if judged != lora.version:
        raise BadData(
            f"{path} is an evaluation of another LoRA: {found.lora} had version {judged} then and has {lora.version} now; "
            "run evaluate again"
        )
    return lora


def objection_to(found: Evaluation, path: str, lora: Lora, champion: Entry | None) -> str:
    """What speaks against promoting the LoRA on this evaluation while that champion reigns; empty when nothing does."""
    if found.decision != "promote":
        return f"{path} says {found.decision}: {found.reason}"
    if lora.parents and found.dataset != lora.dataset:
        return f"{path} is of the data set {found.dataset}, and {lora.path} was trained on {lora.dataset}"
    against = found.champion
    if (against and (against.version, against.scale)) != (champion and (champion.version, champion.scale)):
        then = f"{against.lora} at strength {against.scale:g}" if against else "no champion"
        now = f"{champion.lora} at strength {champion.scale:g}" if champion else "none"
        return f"{path} was made against {then}, and the champion is {now} now: run evaluate again, with PROMOTE_MODEL"
    return ""


def withdrawal_of(store: ObjectStore, lora: Lora) -> str:
    """What speaks against a LoRA that was trained on images which are withdrawn by now; empty when none is."""
    found = withdrawn_images(store, lora.dataset) if lora.parents else {}
    if not found:
        return ""
    name, reason = next(iter(found.items()))
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return (
        f"{lora.path} was trained on {name} of {lora.dataset}{more}, withdrawn since: {reason}; train it again without"
    )


def step_of(store: ObjectStore, lora: Lora) -> int | None:
    """The step of the training that the weights are of; None where no note tells it."""
    place = layout.Lora.parse(lora.path)
    if place:
        with suppress(NotFound, BadData):
            complete = Complete.read(store, place.run)
            return complete.of_step if complete.version == lora.version else None
    return None
