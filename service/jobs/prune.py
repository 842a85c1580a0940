"""`sdlora prune`: old checkpoints and leftovers out; tells first what it would delete."""

from collections.abc import Iterable, Set
from datetime import UTC, datetime

import structlog

from service import stopping
from service.artifacts import layout
from service.artifacts.kinds import registry
from service.artifacts.notes import Status
from service.artifacts.publishing import list_artifacts
from service.artifacts.retention import Deletion, Keep, carry_out, plan_retention, plan_sweep
from service.artifacts.runs import Run
from service.exits import BadData, MissingInput
from service.outcome import add_facts
from service.settings.prune import PruneSettings
from service.storage.interface import NotFound, ObjectStore
from service.storage.opening import open_store

log = structlog.get_logger(__name__)


def prune(settings: PruneSettings) -> None:
    """Deletes what the settings let go; with PRUNE_DRY_RUN, which is the default, it only tells.

    Raises MissingInput when there is nothing of the run, and BadData when it cannot be told what must stay.
    """
    store = open_store(settings.artifacts_uri)
    now = datetime.now(UTC)
    runs = all_runs(store) if settings.all_runs else [settings.run_id]
    if not settings.all_runs and next(iter(store.list(f"{layout.RunFolder(settings.run_id).path}/")), None) is None:
        raise MissingInput(f"there is no run {settings.run_id!r} in {store.uri}; correct RUN_ID or ARTIFACTS_URI")
    named = named_by_registry(store)
    plan: list[Deletion] = []
    for run_id in stopping.interruptible(runs):
        run = Run(store, run_id)
        plan += plan_retention(run, Keep(settings.keep_last, settings.keep_every), protected(run, named), now)
    if settings.all_runs:
        planned = {deletion.path for deletion in plan}
        plan += [deletion for deletion in plan_sweep(store, now) if deletion.path not in planned]
    # A champion whose manifest was deleted to have it published again is in no hurry to lose its files as well.
    plan = [deletion for deletion in plan if deletion.path not in named]

    total = sum(deletion.bytes for deletion in plan)
    objects = sum(len(deletion.keys) for deletion in plan)
    add_facts(dry_run=settings.dry_run, runs=len(runs), items=len(plan), objects=objects, bytes=total)
    for deletion in plan:
        if settings.dry_run:
            log.info("would delete", path=deletion.path, reason=deletion.reason, bytes=deletion.bytes)
        else:
            stopping.check()
            carry_out(store, [deletion])
    advice = "set PRUNE_DRY_RUN=false to delete it" if settings.dry_run and plan else ""
    log.info("pruned" if not settings.dry_run else "would prune", runs=len(runs), items=len(plan), bytes=total,
             **({"next": advice} if advice else {}))  # fmt: skip


def all_runs(store: ObjectStore) -> list[str]:
    """The ids of all runs in the store, sorted."""
    return sorted({place.run for entry in store.list(layout.RUNS) if (place := layout.RunFolder.around(entry.key))})


def named_by_registry(store: ObjectStore) -> set[str]:
    """Paths of all LoRAs that were ever champions, and of their evaluations. Raises BadData for an unreadable entry."""
    try:
        return registry.named(store)
    except BadData as error:
        raise BadData(f"{error}; nothing may be deleted while it is not known what it names: mend it first") from error


def protected(run: Run, champions: Set[str]) -> set[int]:
    """Steps whose checkpoints stay: all of a run whose LoRA is in the registry, else its best and its last step."""
    places = (layout.Lora.parse(path) or layout.CappedLora.parse(path) for path in champions)
    if any(place and place.run == run.run_id for place in places):
        return steps_of(list_artifacts(run.store, layout.Checkpoints(run.run_id).path))
    try:
        status = Status.read(run.store, run.run_id)
    except (NotFound, BadData):
        return set()  # a run of which nothing is known: its newest ones stay in any case
    return {status.step} if status.best_step is None else {status.best_step, status.step}


def steps_of(paths: Iterable[str]) -> set[int]:
    """The steps of the checkpoints among these paths."""
    return {place.step for path in paths if (place := layout.Checkpoint.parse(path))}
