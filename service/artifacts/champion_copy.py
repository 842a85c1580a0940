"""What the copy of a champion is: its LoRA, and the evidence in the model card and in the headers of the weights.

The tensors are the same to the byte. Its version is another one, therefore; its manifest says of which LoRA it is a copy.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.artifacts import layout
from service.artifacts.evidence import Evidence, header_facts, with_evidence
from service.artifacts.fetching import fetch
from service.artifacts.header import complete_header
from service.artifacts.history import History
from service.artifacts.kinds.lora import CARD
from service.artifacts.kinds.registry import Entry
from service.artifacts.manifest import FileEntry, Manifest, content_version, entry_of
from service.artifacts.publishing import read_manifest
from service.exits import BadConfiguration, BadData
from service.storage.interface import ObjectStore

WEIGHTS = ".safetensors"
COPY_OF = "champion"
"""In the settings of the copy's manifest: what the history says of the LoRA."""


@dataclass(frozen=True)
class Copy:
    """A copy of a champion before it is stored: its manifest, and where each of its files is."""

    manifest: Manifest
    files: Mapping[str, Path]


def copy_of(store: ObjectStore, history: History, champion: Entry, scratch: Path, work_dir: Path) -> Copy:
    """The LoRA of an entry that is or will be the last one, with its evidence. scratch: an empty folder for what differs.

    Raises NotFound without the LoRA, BadData when it is damaged or another by now.
    """
    folder = fetch_champion(store, champion, work_dir)
    lora = read_manifest(store, champion.lora or "")
    evidence = Evidence.read(store, history.model, history.promotion_of(champion), lora, work_dir)
    files = {file.path: file for file in lora.files}
    told = {path: _tell(evidence, folder, path, scratch) for path in [CARD, *_weights(lora)]} if evidence else {}
    entries = tuple((files | told)[path] for path in sorted(files | told))
    manifest = lora.model_copy(
        update={
            "folder": "",
            "files": entries,
            "version": content_version(lora.kind, entries),
            "settings": {**lora.settings, COPY_OF: _statement(history.model, champion)},
        }
    )
    return Copy(manifest, {path: (scratch if path in told else folder) / path for path in files | told})


def is_copy_of(manifest: Manifest, model: str, champion: Entry) -> bool:
    """Whether it is the manifest of a copy of the LoRA that is the champion by this entry."""
    return manifest.settings.get(COPY_OF) == _statement(model, champion)


def refuse_copy(path: str) -> None:
    """Raises BadConfiguration when a LoRA is named that is a champion's copy: it follows the registry, and changes."""
    if layout.ChampionCopy.parse(path):
        raise BadConfiguration(f"{path} is a copy of a champion; name the LoRA itself, which `sdlora champion` tells")


def _statement(model: str, champion: Entry) -> dict[str, Any]:
    return {"model": model, **champion.of_the_lora()}


def _weights(lora: Manifest) -> list[str]:
    return [file.path for file in lora.files if file.path.endswith(WEIGHTS)]


def _tell(evidence: Evidence, folder: Path, path: str, scratch: Path) -> FileEntry:
    """Writes the file of the LoRA in `folder` with the evidence to `scratch`: the model card, or weights."""
    source, target = folder / path, scratch / path
    target.parent.mkdir(parents=True, exist_ok=True)
    if path == CARD:
        card = source.read_text(encoding="utf-8") if source.exists() else ""
        target.write_text(with_evidence(card, evidence), encoding="utf-8")
    else:
        shutil.copyfile(source, target)
        complete_header(target, header_facts(evidence))
    return entry_of(scratch, path)


def fetch_champion(store: ObjectStore, entry: Entry, work_dir: Path) -> Path:
    """A verified local folder of the entry's LoRA. Raises NotFound without it, BadData when it is another by now."""
    path = entry.lora or ""
    version = read_manifest(store, path).version
    if version != entry.version:
        raise BadData(f"{store.uri}/{path} holds version {version} now, and the registry means {entry.version}")
    return fetch(store, path, work_dir)
