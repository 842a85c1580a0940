"""A published data set as another one, with its images or captions changed; all else stays true."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from service.artifacts.fetching import fetch
from service.artifacts.kinds.dataset import Split, metadata_name, read_metadata, write_metadata
from service.artifacts.publishing import publish_version, read_manifest
from service.storage.interface import ObjectStore

Change = Callable[[Path], None]


def publish_changed(store: ObjectStore, path: str, name: str, change: Change, work_dir: Path) -> str:
    """Publishes the data set at `path` under `name`, and returns its path. change: takes the folder of the data set."""
    folder = work_dir / name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(fetch(store, path, work_dir), folder)
    (folder / "MANIFEST.json").unlink()
    change(folder)
    settings = read_manifest(store, path).settings
    return publish_version(store, folder, kind="dataset", prefix=f"datasets/{name}", settings=settings).path


def shuffled_pixels(dataset: Path) -> None:
    """Leaves nothing of the training images but their colours."""
    rng = np.random.default_rng(0)
    for file, _ in read_metadata(dataset, "train"):
        pixels = np.asarray(Image.open(file).convert("RGB"))
        Image.fromarray(rng.permutation(pixels.reshape(-1, 3)).reshape(pixels.shape)).save(file)


def other_captions(dataset: Path) -> None:
    """Gives each training image the caption of another: shifted rather than shuffled, so that none keeps its own."""
    files, captions = zip(*read_metadata(dataset, "train"), strict=True)
    half = len(captions) // 2
    _write(dataset, "train", list(zip(files, captions[half:] + captions[:half], strict=True)))


def only(count: int, split: Split) -> Change:
    """Keeps the first images of a split."""
    return lambda dataset: _write(dataset, split, read_metadata(dataset, split)[:count])


def _write(dataset: Path, split: Split, rows: list[tuple[Path, str]]) -> None:
    for file in {file for file, _ in read_metadata(dataset, split)} - {file for file, _ in rows}:
        file.unlink()
    write_metadata(((file.name, caption) for file, caption in rows), dataset / metadata_name(split))
