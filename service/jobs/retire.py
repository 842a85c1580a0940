"""`sdlora retire`: LoRAs are withdrawn from the registry for ever; the next best takes the place of one that reigns."""

from collections.abc import Mapping, Sequence
from contextlib import suppress

import structlog

from service.artifacts.history import History
from service.artifacts.kinds.lora import read as read_lora
from service.artifacts.kinds.registry import Entry, models
from service.artifacts.releasing import Overtaken, follow, release
from service.exits import BadConfiguration, MissingInput
from service.settings.promote import RetireSettings
from service.storage.interface import NotFound, ObjectStore
from service.storage.opening import open_store

log = structlog.get_logger(__name__)

Versions = dict[str, str]
"""LoRAs by what cannot change, their version → where each is."""


def retire(settings: RetireSettings) -> None:
    """Appends an entry to the history of every model that ever had one of the LoRAs, and to that of PROMOTE_MODEL.

    Raises MissingInput when there is no such LoRA. What is withdrawn already stays so.
    """
    if not settings.loras:
        raise BadConfiguration("RETIRE_LORAS is not set: name the LoRAs to withdraw by their paths below ARTIFACTS_URI")
    if not settings.reason:
        raise BadConfiguration("RETIRE_REASON is not set: say why; the entry keeps it")
    store = open_store(settings.artifacts_uri)
    stored = versions_of(store, settings.loras)
    names = sorted({*models(store), *([settings.model] if settings.model else [])})
    concerned = [name for name in names if concerned_by(History.read(store, name), stored, settings)]
    if not concerned:
        raise MissingInput(f"no model in {store.uri} ever had {', '.join(settings.loras)}; correct RETIRE_LORAS")
    for name in concerned:
        withdraw(store, name, stored, settings)


def withdraw(store: ObjectStore, model: str, stored: Versions, settings: RetireSettings) -> None:
    """Withdraws the LoRAs from one model, however often others change it meanwhile."""
    while True:
        history = History.read(store, model)
        found = concerned_by(history, stored, settings)
        new = {version: path for version, path in found.items() if version not in history.retired}
        if not new:
            log.info("already withdrawn", model=model, loras=settings.loras)
            follow(store, model, settings.work_dir)
            return
        with suppress(Overtaken):
            release(store, history, retirement(history, new, settings), settings.work_dir)
            return


def versions_of(store: ObjectStore, paths: Sequence[str]) -> Versions:
    """Of those LoRAs that are still in the store."""
    found = {}
    for path in paths:
        with suppress(NotFound):
            found[read_lora(store, path).version] = path
    return found


def concerned_by(history: History, stored: Versions, settings: RetireSettings) -> Versions:
    """The LoRAs to withdraw that this model ever had, at whatever path; of PROMOTE_MODEL those that it never had as well."""
    had = {entry.version: entry.lora for entry in history.entries
           if entry.lora and (entry.lora in settings.loras or entry.version in stored)}  # fmt: skip
    return {**stored, **had} if history.model == settings.model else had


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
