"""Changes of a registry: the entry first, which is the truth, then the copy of the champion's LoRA, which follows it.

A published artifact never changes, but for this copy: it is for programs that know nothing of us and want one address that
stays. Its manifest is deleted first and put last. So who reads it as an artifact finds none while it changes, or notices by the
hashes; who reads a single file of it gets the old one or the new one, whole.
"""

import random
import time
from collections.abc import Set
from pathlib import Path

import structlog

from service import stopping
from service.artifacts import layout
from service.artifacts.champion_copy import copy_of, is_copy_of
from service.artifacts.fetching import verify
from service.artifacts.history import History, append
from service.artifacts.kinds.registry import Entry
from service.artifacts.manifest import MANIFEST_NAME
from service.exits import BadData, Rejected, StorageUnreachable
from service.storage.interface import NotFound, ObjectStore
from service.storage.scratch import scratch_folder

log = structlog.get_logger(__name__)

TRIES = 10
"""How often others may change the champion, or copy it, while we copy it."""
LONGEST_PAUSE = 60.0
"""Seconds at most before the next try."""


class Overtaken(Rejected):
    """Somebody else has changed the registry since it was read."""


def release(store: ObjectStore, history: History, entry: Entry, work_dir: Path) -> str:
    """Appends the entry to the history that it was decided on, and has the copy follow. Returns the key of the entry.

    Raises Overtaken when another change was faster, unless it is the same one.
    """
    if entry.lora:
        with scratch_folder(work_dir) as scratch:
            copy_of(store, history, entry, scratch, work_dir)  # before anything is changed: it may be damaged
    stands, number = append(store, history, entry), history.number + 1
    follow(store, history.model, work_dir)
    if not stands.says_the_same(entry):
        raise Overtaken(
            f"another change of {history.model} was faster: entry {number}, {stands.action} of {stands.lora or 'no LoRA'} by "
            f"{stands.by}; nothing came of this one: look at the new champion, and evaluate against it"
        )
    log.info("registered", model=history.model, number=number, action=entry.action, lora=entry.lora, by=stands.by)
    return history.key(number)


def follow(store: ObjectStore, model: str, work_dir: Path) -> None:
    """Makes the copy the LoRA of the champion of now, or removes it when there is none; nothing happens where it is right."""
    for attempt in range(TRIES):
        # Read anew each time: who is slower than the next promotion comes here again, and mends what it has mixed.
        history = History.read(store, model)
        if is_followed(store, history):
            return
        path, began = layout.ChampionCopy(model).path, time.monotonic()
        if history.champion:
            _copy(store, history, history.champion, path, work_dir)
        else:
            _clear(store, path)
        if is_followed(store, History.read(store, model)):
            return
        # Two who copy at once each undo the work of the other, and would for ever: until one of them stands aside.
        longest = min((time.monotonic() - began) * 2**attempt, LONGEST_PAUSE)
        stopping.pause(random.uniform(0, longest))
    raise StorageUnreachable(
        f"the champion of {model} in {store.uri} is changed or copied by others all the time; try again"
    )


def is_followed(store: ObjectStore, history: History) -> bool:
    """Whether the copy is whole, has no other file, and is of the champion; or is not there when there is none."""
    path = layout.ChampionCopy(history.model).path
    there = {stored.key for stored in store.list(f"{path}/")}
    if history.champion is None or not there:
        return history.champion is None and not there
    try:
        manifest = verify(store, path)
    except (NotFound, BadData):
        return False
    files = {f"{path}/{file.path}" for file in manifest.files}
    return is_copy_of(manifest, history.model, history.champion) and there == files | {f"{path}/{MANIFEST_NAME}"}


def _copy(store: ObjectStore, history: History, champion: Entry, path: str, work_dir: Path) -> None:
    with scratch_folder(work_dir) as scratch:
        copy = copy_of(store, history, champion, scratch, work_dir)
        store.delete(f"{path}/{MANIFEST_NAME}")
        for name, file in copy.files.items():
            store.put(f"{path}/{name}", file)
        _clear(store, path, keep={f"{path}/{name}" for name in copy.files})
        store.put(f"{path}/{MANIFEST_NAME}", copy.manifest.to_bytes())
    log.info("champion copied", lora=champion.lora, to=path)


def _clear(store: ObjectStore, path: str, keep: Set[str] = frozenset()) -> None:
    """Deletes the manifest, then what else is there, but for the keys to keep."""
    store.delete(f"{path}/{MANIFEST_NAME}")
    for stored in list(store.list(f"{path}/")):
        if stored.key not in keep:
            store.delete(stored.key)
