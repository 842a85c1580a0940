"""`sdlora retrain`: the images of now in, the next champion of a model out where it is better; each of its parts once."""

from contextlib import suppress
from typing import Any

import structlog

from service import stopping
from service.artifacts import layout
from service.artifacts.code import release
from service.artifacts.fetching import read_file
from service.artifacts.history import History
from service.artifacts.keys import content_key
from service.artifacts.kinds import evaluation, retraining
from service.artifacts.kinds.lora import read as read_lora
from service.artifacts.kinds.retraining import Retraining
from service.artifacts.recipes import Result, result_of
from service.artifacts.runs import Run
from service.artifacts.spent import Stopwatch, spent
from service.exits import BadConfiguration, BadData, Rejected
from service.jobs.data_prep import data_prep
from service.jobs.promote import promote
from service.lineage.difference import DatasetDifference, difference
from service.lineage.listing import listing
from service.lineage.retraining_text import headline, page, report
from service.outcome import add_facts
from service.settings.common import CommonSettings
from service.settings.data_prep import DataPrepSettings
from service.settings.evaluate import EvaluateSettings
from service.settings.identity import for_key, identity
from service.settings.promote import ChangeSettings, PromoteSettings
from service.settings.retrain import RetrainSettings
from service.settings.train import TrainSettings
from service.storage.interface import NotFound, ObjectStore
from service.storage.opening import open_store
from service.storage.scratch import scratch_folder
from service.training.costs import spent_before

TRIES = 5
"""How often others may change the champion while we evaluate against the one before."""

log = structlog.get_logger(__name__)


def retrain(settings: RetrainSettings) -> str:
    """Data set, LoRA, evaluation, promotion, and a report of it, whose path below ARTIFACTS_URI it returns.

    What was done before, by whatever start, is not done again; a combination of data set, settings, models and release that
    was brought to its end ends at once, whatever it came to: so nothing comes back by itself that was rolled back. Raises
    Rejected, after publishing the report, when the LoRA is not promoted, unless RETRAIN_FAIL_UNLESS_PROMOTED is false.
    """
    store, model = open_store(settings.artifacts_uri), settings.named_model()
    places = given(settings, CommonSettings)
    watch = Stopwatch()
    with watch.stage("data-prep"):
        dataset = dataset_of_now(places)
    run_id = run_id_of(model, TrainSettings(**places), dataset)
    run, here = Run(store, run_id), places | {"run_id": run_id}
    judging = EvaluateSettings(**here, champion=model, lora=None, dataset=None, fail_unless_promoted=False)
    add_facts(run=run_id)
    result = result_for(run, judging, run.lora_path)
    if result.made:
        return already_done(store, result)
    log.info("retraining", run=run_id, dataset=dataset)

    with watch.stage("train", run):
        lora = trained(TrainSettings(**here, dataset=dataset))
    result = result_for(run, judging, lora)
    if result.made:
        return already_done(store, result)  # what a limit has ended, and nobody has raised since
    with watch.stage("evaluate and promote", run):
        judged, entry = decided(run, lora, judging, settings)
    found = told(run, lora, judged, entry, settings)
    publish(run, found, result, judging)

    add_facts(**in_short(found, result.path))
    log.info(headline(found), **in_short(found, result.path))
    if settings.fail_unless_promoted and not found.promoted:
        raise Rejected(found.reason)
    return result.path


def given(settings: RetrainSettings, kind: type[CommonSettings]) -> dict[str, Any]:
    """What flags and environment say of the settings that are those of `kind` too."""
    return settings.model_dump(include=set(kind.model_fields), exclude_unset=True)


def run_id_of(model: str, settings: TrainSettings, dataset: str) -> str:
    """The run in which the LoRA is trained: the model's name, and the hash of what decides the LoRA.

    That is the version of the data set, the settings of train that decide, its models with their revisions, and the release
    of this program. Not its commit: a rebuilt image, or one with a mended message, would train anew what comes out the same;
    whoever changes what training does gives the program another version. Settings that came in later and have the value of
    then change nothing. What decides the evaluation alone is not in it either: another threshold judges the same LoRA anew.
    """
    recipe = for_key(TrainSettings, identity(settings, dataset=dataset)) | {"release": release()}
    return f"{model[:50]}-{content_key(recipe)}"


def dataset_of_now(places: dict[str, Any]) -> str:
    """The data set that TRAIN_DATASET names, else the one that data-prep makes of the images as they are now."""
    if named := TrainSettings(**places).dataset:
        return named
    path = data_prep(DataPrepSettings(**places))
    if path is None:
        raise BadConfiguration("DATA_PREP_STEP=shard makes no data set; retrain needs `all`, or a TRAIN_DATASET")
    stopping.check()
    return path


def result_for(run: Run, judging: EvaluateSettings, lora: str) -> Result:
    """Where the report on this LoRA is, or belongs, judged with these settings.

    A LoRA that a limit has ended has one of its own: with a higher limit, retrain goes on to the whole.
    """
    return result_of(run, layout.Retraining, judging, recipe_of(judging, lora))


def recipe_of(judging: EvaluateSettings, lora: str) -> dict[str, Any]:
    """What decides a report, in a run that decides the LoRA."""
    return identity(judging, lora=lora)


def already_done(store: ObjectStore, result: Result) -> str:
    """Says what it came to then."""
    found = retraining.read(store, result.path)
    add_facts(**in_short(found, result.path))
    log.info("already done", **in_short(found, result.path))
    return result.path


def trained(settings: TrainSettings) -> str:
    """The path of the LoRA."""
    with stopping.nothing_to_save():
        from service.jobs.train import train  # torch takes seconds to import, and who is done already needs none of it

    lora = train(settings)
    stopping.check()
    return lora


def decided(run: Run, lora: str, judging: EvaluateSettings, settings: RetrainSettings) -> tuple[str, int | None]:
    """The path of the evaluation that decides, and the number of the entry that promoted the LoRA, None where none did.

    When the champion changes meanwhile, the LoRA is evaluated again, against the new one. Once it was promoted, by us or by
    another start of the same run, this stays so: it would else be judged against itself.
    """
    with stopping.nothing_to_save():
        from service.jobs.evaluate import champion_now, evaluate  # torch takes seconds to import

    model = settings.named_model()
    for _ in range(TRIES):
        if promotion := promotion_of(run.store, model, lora):
            return promotion
        path = evaluate(judging)
        stopping.check()
        found = evaluation.read(run.store, path, settings.work_dir)
        if found.decision != "promote":
            if promotion := promotion_of(run.store, model, lora):
                return promotion
            return path, None
        try:
            here = given(settings, ChangeSettings) | {"run_id": run.run_id}
            promote(PromoteSettings(**here, evaluation=path, force=""))
        except Rejected as error:
            if champion_now(run.store, model) == found.champion:
                raise
            log.info("the champion has changed, so it is evaluated again", reason=str(error))
    raise Rejected(f"the champion of {model} was changed {TRIES} times while {lora} was evaluated; start retrain again")


def promotion_of(store: ObjectStore, model: str, lora: str) -> tuple[str, int] | None:
    """The evaluation and the number of the entry by which the LoRA became the champion first, if it ever did."""
    version = read_lora(store, lora).version
    for number, entry in enumerate(History.read(store, model).entries, 1):
        if entry.action == "promote" and entry.version == version and entry.evaluation:
            return entry.evaluation, number
    return None


def told(run: Run, lora: str, judged: str, entry: int | None, settings: RetrainSettings) -> Retraining:
    """What the run came to."""
    found = evaluation.read(run.store, judged, settings.work_dir)
    champion = found.champion.lora if found.champion else None
    seconds = spent(run)
    seconds["train"] = max(
        seconds.get("train", 0.0), round(spent_before(run), 1)
    )  # attempts that were killed noted theirs
    hourly = settings.price_per_hour
    return Retraining(
        model=settings.named_model(),
        decision=found.decision,
        reason=found.reason,
        entry=entry,
        lora=lora,
        evaluation=judged,
        dataset=read_lora(run.store, lora).dataset,
        champion=champion,
        champion_dataset=dataset_of(run.store, champion) if champion else None,
        seconds=seconds,
        price=None if hourly is None else round(hourly * sum(seconds.values()) / 3600, 2),
    )


def dataset_of(store: ObjectStore, lora: str) -> str | None:
    """The data set that a LoRA was trained on; None where that is not known, or not there any more."""
    with suppress(NotFound, BadData):
        path = read_lora(store, lora).dataset
        listing(store, path)
        return path
    return None


def publish(run: Run, found: Retraining, result: Result, judging: EvaluateSettings) -> None:
    """The report, for programs and for people."""
    changed = changes(run.store, found)

    def said(file: str) -> str:
        return read_file(run.store, found.evaluation, file).decode()

    with scratch_folder(judging.work_dir) as folder:
        (folder / retraining.JSON_FILE).write_bytes(found.to_bytes())
        (folder / retraining.REPORT_FILE).write_text(
            report(found, said(evaluation.REPORT_FILE), changed), encoding="utf-8"
        )
        (folder / retraining.PAGE_FILE).write_text(page(found, said(evaluation.PAGE_FILE), changed), encoding="utf-8")
        if changed:
            (folder / retraining.DIFFERENCE_FILE).write_bytes(changed.to_bytes())
        parents = [found.lora, found.dataset]
        retraining.write(run.store, folder, path=result.path, parents=parents, recipe=recipe_of(judging, found.lora))


def changes(store: ObjectStore, found: Retraining) -> DatasetDifference | None:
    """From the data set of the champion to this one; None where there is none to compare with."""
    if found.champion_dataset is None:
        return None
    return difference(listing(store, found.champion_dataset), listing(store, found.dataset))


def in_short(found: Retraining, path: str) -> dict[str, Any]:
    """For the log and the outcome."""
    return {
        "promoted": found.promoted,
        "decision": found.decision,
        "reason": found.reason,
        "lora": found.lora,
        "page": f"{path}/{retraining.PAGE_FILE}",
    }
