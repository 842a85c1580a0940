"""LoRAs and evaluations as the registry sees them: whole artifacts, of bytes that no model has to make."""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from service.__main__ import run
from service.artifacts.champion_copy import is_copy_of
from service.artifacts.fetching import verify
from service.artifacts.history import History
from service.artifacts.kinds import evaluation, lora
from service.artifacts.kinds.evaluation import Champion, Counts, Evaluation
from service.artifacts.kinds.registry import Entry
from service.artifacts.publishing import read_manifest
from service.exits import ExitCode
from service.storage.interface import ObjectStore
from service.storage.opening import open_store

MODEL = "pixel-art"
WEIGHTS = "pytorch_lora_weights.safetensors"
DATASET = "datasets/pixels/0123456789abcdef"


def trained(store: ObjectStore, run_id: str, dataset: str = DATASET) -> str:
    """The LoRA of a run, whose bytes are no other's; returns its path."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("README.md", f"only-{run_id}.txt"):
            Path(folder, name).write_text(f"{name} of {run_id}")
        weights = {"of": np.frombuffer(run_id.encode(), dtype=np.uint8), "more": np.ones((2, 3), dtype=np.float32)}
        save_file(weights, Path(folder, WEIGHTS), metadata={"modelspec.title": run_id})
        return lora.write(store, Path(folder), run_id=run_id, dataset=dataset, recipe={"resolution": 64}).path


def evaluated(store: ObjectStore, run_id: str, champion: Entry | None = None, **changes: Any) -> str:
    """An evaluation of the run's LoRA, against a champion or none, that says promote; returns its path."""
    path = lora.Lora.read(store, f"runs/{run_id}/lora")
    values: dict[str, Any] = {
        "decision": "promote",
        "reason": "the style comes nearer",
        "findings": [],
        "confidence": 0.95,
        "counts": Counts(prompts=2, variations=2, held_out_images=20),
        "prompts": ["an apple", "a boat"],
        "lora": path.path,
        "champion": Champion(lora=champion.lora or "", version=champion.version, scale=champion.scale)
        if champion
        else None,
        "dataset": path.dataset,
        "measurements": None,
        "settings": {"lora_version": path.version},
    }
    content = Evaluation(**{**values, **changes})
    key = f"{champion.version if champion else 'none'}-{content.decision}"
    with tempfile.TemporaryDirectory() as folder:
        evaluation.write_json(content, Path(folder))
        Path(folder, evaluation.REPORT_FILE).write_text(f"## {content.decision}: `{content.lora}`\n")
        return evaluation.write(
            store,
            Path(folder),
            path=f"runs/{run_id}/evaluation/{key}",
            parents=[content.lora, content.dataset],
            recipe=content.settings,
        ).path


def tensors_of(weights: bytes) -> bytes:
    """All of a safetensors file but its header."""
    return weights[8 + int.from_bytes(weights[:8], "little") :]


def entries(store: ObjectStore, model: str = MODEL) -> dict[str, bytes]:
    """What stands in the history, by key."""
    found = [stored.key for stored in store.list(f"registry/{model}/") if stored.key.count("/") == 2]
    return {key: store.get(key) for key in sorted(found)}


def reigning(store: ObjectStore, model: str = MODEL) -> str | None:
    """Path of the LoRA that is the champion, which the copy must be of: whole, and with nothing beside it."""
    champion = History.read(store, model).champion
    there = {stored.key for stored in store.list(f"registry/{model}/champion/")}
    if champion is None or champion.lora is None:
        assert there == set()
        return None
    copy_path = f"registry/{model}/champion"
    original = read_manifest(store, champion.lora)
    copy = verify(store, copy_path)
    assert is_copy_of(copy, model, champion)
    assert copy.parents == original.parents
    assert there == {f"registry/{model}/champion/{name}" for name in ("MANIFEST.json", *(f.path for f in copy.files))}
    for file in original.files:
        copied_file, itself = store.get(f"{copy_path}/{file.path}"), store.get(f"{champion.lora}/{file.path}")
        if file.path == WEIGHTS:
            copied_file, itself = tensors_of(copied_file), tensors_of(itself)
        assert copied_file.startswith(itself) if file.path == "README.md" else copied_file == itself
    return champion.lora


class Jobs:
    """Runs jobs in this process on the store of a folder, and gives what they say."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._monkeypatch, self._capsys = folder, monkeypatch, capsys
        self.store: ObjectStore = open_store(str(folder / "artifacts"))
        for name, value in {"PROMOTE_MODEL": MODEL, "WORK_DIR": str(folder / "work"), "LOG_FORMAT": "json"}.items():
            monkeypatch.setenv(name, value)

    def __call__(self, job: str, code: ExitCode = ExitCode.DONE, **variables: str) -> str:
        """The line with which it failed, or what it wrote to standard output."""
        self._capsys.readouterr()
        with self._monkeypatch.context() as patch:
            for name, value in {"ARTIFACTS_URI": self.store.uri, **variables}.items():
                patch.setenv(name, value)
            ended = run([job])
        said = self._capsys.readouterr()
        assert ended == code, said.err
        failed = [event["error"] for event in map(json.loads, said.err.splitlines()) if event["event"] == "failed"]
        return failed[0] if failed else said.out

    def promote(self, run_id: str, dataset: str = DATASET, **variables: str) -> None:
        """Trains, evaluates against the champion of now, and promotes."""
        trained(self.store, run_id, dataset)
        evaluated(self.store, run_id, History.read(self.store, MODEL).champion)
        self("promote", RUN_ID=run_id, **variables)


def aged(folder: Path) -> None:
    """All files of a local store were written two days ago."""
    for file in folder.rglob("*"):
        status = file.stat()
        os.utime(file, (status.st_atime, status.st_mtime - 48 * 3600))


def copied(folder: Path, to: Path) -> Path:
    """A fresh copy of a local store."""
    shutil.rmtree(to, ignore_errors=True)
    return Path(shutil.copytree(folder, to))
