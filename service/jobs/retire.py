"""`sdlora retire`: LoRAs are withdrawn from the registry for ever, and an image from all data sets to come.

Where the champion is withdrawn, the next best takes its place.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog

from service import stopping
from service.artifacts.champion_copy import refuse_copy
from service.artifacts.history import History
from service.artifacts.kinds import exclusions
from service.artifacts.kinds.lora import read as read_lora
from service.artifacts.kinds.registry import Entry, models
from service.artifacts.layout import ChampionCopy
from service.artifacts.releasing import Overtaken, follow, release
from service.exits import BadConfiguration, MissingInput
from service.lineage.sought import sought
from service.lineage.tracing import Trace, archive_of, exclusion_of, trace
from service.notification import notify_champion
from service.outcome import add_facts
from service.settings.promote import RetireSettings
from service.storage.interface import NotFound, ObjectStore
from service.storage.opening import open_store

log = structlog.get_logger(__name__)

Versions = dict[str, str]
"""LoRAs by what cannot change, their version → where each is."""


@dataclass(frozen=True)
class Withdrawal:
    """The LoRAs to withdraw: paths as they were named, versions of those that are still in the store."""

    paths: Sequence[str]
    stored: Versions
    model: str | None
    """PROMOTE_MODEL: from which they are withdrawn even if it never had one."""

    def of(self, history: History) -> Versions:
        """What to withdraw from a model: all of them, if it ever had one, at whatever path."""
        had = {entry.version: entry.lora for entry in history.entries
               if entry.lora and (entry.lora in self.paths or entry.version in self.stored)}  # fmt: skip
        return {**self.stored, **had} if had or history.model == self.model else {}


def retire(settings: RetireSettings) -> None:
    """Appends an entry to the history of every model that ever had one of the LoRAs, and to that of PROMOTE_MODEL.

    Of RETIRE_IMAGE these are all that descend from it, and a record keeps it out of data sets. What is withdrawn already stays
    so. Raises MissingInput when there is no such LoRA or file; BadData, after all that is known was withdrawn, when something
    in the store cannot be read: it may descend from the image as well.
    """
    if not settings.loras and settings.withdrawn_image is None:
        raise BadConfiguration(
            "neither RETIRE_LORAS nor RETIRE_IMAGE is set: name the LoRAs to withdraw by their paths below ARTIFACTS_URI, or "
            "the image that they descend from"
        )
    if not settings.reason:
        raise BadConfiguration("RETIRE_REASON is not set: say why; the entry keeps it")
    for path in settings.loras:
        refuse_copy(path)
    store = open_store(settings.artifacts_uri)
    found = descent(store, settings)
    paths = (
        [*settings.loras, *(path for path in found.loras if not ChampionCopy.parse(path))] if found else settings.loras
    )
    withdrawal = Withdrawal(paths, versions_of(store, paths), settings.model)
    names = sorted({*models(store), *([settings.model] if settings.model else [])})
    concerned = [name for name in names if withdrawal.of(History.read(store, name))]
    if settings.loras and not concerned:
        raise MissingInput(f"no model in {store.uri} ever had {', '.join(settings.loras)}; correct RETIRE_LORAS")
    if found:
        # First, so that nobody prepares a data set with it while the LoRAs are withdrawn.
        record = exclusions.add(store, exclusion_of(found, settings.reason))
        log.info("withdrawn from all further data sets", image=settings.withdrawn_image, record=record)
        add_facts(datasets=sum(one.holds for one in found.datasets), exclusion=record)
    for name in concerned:
        withdraw(store, name, withdrawal, settings)
    add_facts(loras=len(paths), models=concerned)
    if found:
        found.check_complete()


def descent(store: ObjectStore, settings: RetireSettings) -> Trace | None:
    """All that descends from RETIRE_IMAGE, if it is set. Raises MissingInput for a file that does not exist."""
    if settings.withdrawn_image is None:
        return None
    image = sought(settings.withdrawn_image, "RETIRE_IMAGE")
    return trace(image, archive_of(store, stopping.check), look_alikes=settings.look_alikes == "include")


def withdraw(store: ObjectStore, model: str, withdrawal: Withdrawal, settings: RetireSettings) -> None:
    """Withdraws the LoRAs from one model, however often others change it meanwhile."""
    while True:
        history = History.read(store, model)
        found = withdrawal.of(history)
        new = {version: path for version, path in found.items() if version not in history.retired}
        if not new:
            log.info("already withdrawn", model=model, loras=withdrawal.paths)
            follow(store, model, settings.work_dir)
            return
        with suppress(Overtaken):
            entry = retirement(history, new, settings)
            key = release(store, history, entry, settings.work_dir)
            if entry.lora != entry.previous:
                notify_champion(model, key, entry.model_dump(mode="json"))
            return


def versions_of(store: ObjectStore, paths: Sequence[str]) -> Versions:
    """Of those LoRAs that are still in the store."""
    found = {}
    for path in paths:
        with suppress(NotFound):
            found[read_lora(store, path).version] = path
    return found


def retirement(history: History, withdrawn: Mapping[str, str], settings: RetireSettings) -> Entry:
    """The entry that withdraws the LoRAs: the champion stays, or the next best that is none of them takes its place."""
    champion = history.champion
    successor = history.next_best(set(withdrawn)) if champion and champion.version in withdrawn else champion
    return Entry.made_now(
        action="retire",
        **(successor.of_the_lora() if successor else {"lora": None}),
        previous=champion.lora if champion else None,
        retired=dict(withdrawn),
        reason=settings.reason,
        by=settings.who(),
        image=settings.image or None,
    )
