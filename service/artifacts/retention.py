"""What may go: checkpoints that nothing needs any more, and what writers that were killed have left behind.

First a plan, which only reads and which a dry run shows; then `carry_out`, which deletes it, of every artifact the manifest
first. What is safe against whom:

- A reader of an artifact whose manifest is gone finds nothing, or notices that a file is missing: never a mixture.
- The newest checkpoint and one before it are never in a plan, so a run that resumes at the same moment finds its own. One
  that is damaged is never counted among those that are kept, so it cannot push out a good one.
- Two plans carried out at once delete no more than either alone: both keep the same ones.
- Files without a manifest are left alone until nothing of their artifact was written for a day, which no living writer takes
  between two files; and they are looked at again at the moment of deletion, so a writer that came back for them keeps them.
  What remains is a sweeper that stands still between that look and the deletion for as long as the writer needs for all the
  rest; the writer's own look at its files before it writes the manifest finds most of that too.
- Only folders that can be nothing but artifacts are swept. A preparation that is under way, status.json, dataset.json, the
  registry, remembered captions and whatever else lies in the store are not looked at.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from service.artifacts import layout
from service.artifacts.manifest import MANIFEST_NAME, OF_WRITERS
from service.artifacts.publishing import read_manifest
from service.artifacts.runs import Run
from service.exits import BadConfiguration, BadData
from service.storage.interface import LeavesUnfinished, NotFound, ObjectStore, StoredObject, Unfinished
from service.storage.parallel import for_each

log = structlog.get_logger(__name__)

ORPHANED_AFTER = timedelta(hours=24)
"""Longer than any writer lets pass between two files of one artifact."""

OF_A_WRITER = re.compile(rf"(.+?)/{OF_WRITERS.pattern}")


@dataclass(frozen=True)
class Keep:
    """Which checkpoints of a run stay: the `last` ones, at least 2, and those at multiples of `every` steps; 0: none."""

    last: int
    every: int

    def __post_init__(self) -> None:
        # With one, a damaged newest checkpoint would be a run that starts again at 0.
        if self.last < 2:
            raise BadConfiguration(f"at least the last 2 checkpoints must be kept, not {self.last}")
        if self.every < 0:
            raise BadConfiguration(f"checkpoints can be kept every so many steps, not every {self.every}; 0 for none")


@dataclass(frozen=True)
class Deletion:
    """What is deleted together: its path, why, its keys with the manifest first, and how many bytes that frees.

    `touched` is when any of it was last written. An `upload` has no keys yet.
    """

    path: str
    reason: str
    keys: tuple[str, ...]
    bytes: int
    touched: datetime
    upload: Unfinished | None = None


def checkpoints_to_delete(steps: Sequence[int], keep_last: int, keep_every: int, protected: Set[int]) -> list[int]:
    """Which of the steps that have a checkpoint need none any more, in ascending order."""
    keep = Keep(keep_last, keep_every)
    ordered = sorted(set(steps))
    return [
        step for step in ordered[: -keep.last] if step not in protected and not (keep.every and step % keep.every == 0)
    ]


def plan_retention(run: Run, keep: Keep, protected: Set[int], now: datetime) -> list[Deletion]:
    """What of the run's checkpoints may go. `protected`: steps that stay in any case, such as the best and the promoted."""
    objects = list(run.store.list(f"{layout.Checkpoints(run.run_id).path}/"))
    whole, damaged = _checkpoints(run.store, objects)
    doomed = set(checkpoints_to_delete(list(whole), keep.last, keep.every, protected))
    newest = max(whole, default=0)
    oldest_of_last = min(sorted(whole)[-keep.last :], default=0)
    plan = []
    for step, paths in sorted(whole.items()):
        # The newest one's duplicates stay: another writer, or a run that resumes, may be reading either.
        stay = paths if step == newest else [] if step in doomed else paths[:1]
        for path in paths:
            if path not in stay:
                reason = (
                    f"another attempt's checkpoint of step {step} stays" if stay else f"step {step} is no longer needed"
                )
                plan.append(_whole_deletion(path, reason, objects))
    # Whether one is damaged was judged from afar; so it goes only when it would if it were not.
    for step, paths in sorted(damaged.items()):
        if step < oldest_of_last and step not in protected and not (keep.every and step % keep.every == 0):
            plan += [_whole_deletion(path, f"step {step} is damaged and no longer needed", objects) for path in paths]
    return plan + _left_behind(run.store, objects, now - ORPHANED_AFTER)


def plan_sweep(store: ObjectStore, now: datetime) -> list[Deletion]:
    """What killed writers have left anywhere in the store: files that no manifest lists, and unfinished uploads."""
    before = now - ORPHANED_AFTER
    plan = _left_behind(store, list(store.list("")), before)
    if isinstance(store, LeavesUnfinished):
        plan += [
            Deletion(write.key, f"a write that was not finished; last progress {write.touched:%Y-%m-%d %H:%M} UTC", (),
                     write.size, write.touched, write)
            for write in store.unfinished(before)
        ]  # fmt: skip
    return plan


def carry_out(store: ObjectStore, deletions: Iterable[Deletion]) -> None:
    """Deletes what a plan lists. What was written to since the plan was made is left out, and named."""
    for deletion in deletions:
        if deletion.upload is not None:
            if isinstance(store, LeavesUnfinished):
                store.discard(deletion.upload)
        elif keys := _still_to_go(store, deletion):
            if keys[0].endswith(f"/{MANIFEST_NAME}"):
                store.delete(keys[0])
            for_each(store.delete, keys, f"deleting {deletion.path}")
        log.info("deleted", path=deletion.path, reason=deletion.reason, bytes=deletion.bytes)


def _still_to_go(store: ObjectStore, deletion: Deletion) -> Sequence[str]:
    """The keys of a deletion, without those that a writer has come back for."""
    if deletion.keys[0].endswith(f"/{MANIFEST_NAME}"):
        return deletion.keys
    now = list(store.list(f"{deletion.path}/"))
    found = _left_behind(store, now, deletion.touched + timedelta(microseconds=1))
    still = {key for left in found for key in left.keys}
    if still_there := [key for key in deletion.keys if key not in still]:
        log.warning("left alone, because it was written to meanwhile", path=deletion.path, files=len(still_there))
    return [key for key in deletion.keys if key in still]


def _checkpoints(
    store: ObjectStore, objects: Sequence[StoredObject]
) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """Paths of the published checkpoints by step: those that are whole as far as a listing tells, and the others."""
    sizes = {entry.key: entry.size for entry in objects}
    whole: defaultdict[int, list[str]] = defaultdict(list)
    damaged: defaultdict[int, list[str]] = defaultdict(list)
    for key in sorted(sizes):
        path, _, name = key.rpartition("/")
        place = layout.Checkpoint.parse(path)
        if place is None or name != MANIFEST_NAME:
            continue
        step = place.step
        try:
            manifest = read_manifest(store, path)
        except NotFound:
            continue  # deleted since the listing
        except BadData:
            damaged[step].append(path)
            continue
        intact = all(sizes.get(f"{path}/{manifest.name_of(file)}") == file.size for file in manifest.files)
        (whole if intact else damaged)[step].append(path)
    return whole, damaged


def _whole_deletion(path: str, reason: str, objects: Sequence[StoredObject]) -> Deletion:
    manifest = f"{path}/{MANIFEST_NAME}"
    return _deletion(path, reason, sorted((entry for entry in objects if entry.key.startswith(f"{path}/")),
                                          key=lambda entry: (entry.key != manifest, entry.key)))  # fmt: skip


def _deletion(path: str, reason: str, entries: Sequence[StoredObject]) -> Deletion:
    keys = tuple(entry.key for entry in entries)
    touched = max(entry.modified for entry in entries)
    return Deletion(path, reason, keys, sum(entry.size for entry in entries), touched)


def _left_behind(store: ObjectStore, objects: Sequence[StoredObject], before: datetime) -> list[Deletion]:
    """What belongs to no artifact, in folders of artifacts where none of it was written since `before`."""
    published = {entry.key.rpartition("/")[0] for entry in objects if entry.key.rpartition("/")[2] == MANIFEST_NAME}
    orphans: defaultdict[str, list[StoredObject]] = defaultdict(list)
    disputed = set()
    for entry in objects:
        folder = layout.swept_folder(entry.key)
        if folder and not any(parent in published for parent in _parents(entry.key)):
            orphans[folder].append(entry)
        elif (match := OF_A_WRITER.match(entry.key)) and match[1] in published:
            disputed.add(match[1])
    plan = []
    for path, entries in sorted(orphans.items()):
        if (touched := max(entry.modified for entry in entries)) < before:
            reason = f"files without a manifest; the last was written {touched:%Y-%m-%d %H:%M} UTC"
            plan.append(_deletion(path, reason, sorted(entries)))
    for path in sorted(disputed):
        entries = _of_those_who_yielded(store, path, objects)
        if entries and max(entry.modified for entry in entries) < before:
            plan.append(_deletion(path, "files of a writer that yielded to another", entries))
    return plan


def _of_those_who_yielded(store: ObjectStore, path: str, objects: Sequence[StoredObject]) -> list[StoredObject]:
    """Objects in the folder of an artifact that its manifest does not list, as far as writers of artifacts put them."""
    try:
        manifest = read_manifest(store, path)
    except (NotFound, BadData):
        return []
    listed = {f"{path}/{manifest.name_of(file)}" for file in manifest.files} | {f"{path}/{MANIFEST_NAME}"}
    return [
        entry
        for entry in sorted(objects)
        if entry.key.startswith(f"{path}/")
        and entry.key not in listed
        and (manifest.folder or OF_A_WRITER.match(entry.key))
    ]


def _parents(key: str) -> Iterable[str]:
    """The folders of a key, the innermost first, and the root."""
    while key:
        key = key.rpartition("/")[0]
        yield key
