"""Data sets for tests: their tables and their provenance, published as data-prep does, with a few bytes for each picture."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.artifacts.kinds import dataset
from service.artifacts.kinds.dataset import SPLITS, Provenance, Split, write_metadata, write_provenance
from service.lineage.listing import ListedImage
from service.storage.interface import ObjectStore


def image(content: str, split: Split = "train", caption: str = "a cat", **facts: Any) -> ListedImage:
    """An image that is known by one letter."""
    known = {"origin": f"https://a.example/{content}.png", "licence": None} | facts
    return ListedImage(
        sha256=content * 64, file_sha256=content.upper() * 64, file_name=f"{split}/{content}.png", split=split,
        caption=caption, **known,
    )  # fmt: skip


def entry(rank: int, origin: str, **facts: Any) -> Provenance:
    """A candidate of which nothing but its origin is known; `facts` say more."""
    unknown = {
        "reason": None,
        "detail": "",
        "file_name": None,
        "page": None,
        "query": None,
        "licence": None,
        "kept": None,
    }
    return Provenance(origin=origin, rank=rank, **{**unknown, **facts})


@dataclass(frozen=True)
class Published:
    """What a published data set is made of. captions: by file name below imagefolder."""

    captions: dict[str, str]
    entries: Sequence[Provenance] = ()
    parents: Sequence[str] = ()
    recipe: dict[str, Any] = field(default_factory=dict)


def publish(store: ObjectStore, folder: Path, content: Published, name: str = "blocks") -> str:
    """The path of the data set."""
    images = folder / "imagefolder"
    for split in SPLITS:
        (images / split).mkdir(parents=True)
        rows = {file: caption for file, caption in content.captions.items() if file.startswith(f"{split}/")}
        for file in rows:
            (images / file).write_bytes(f"the picture {file} of {name}".encode())
        write_metadata(
            ((file.removeprefix(f"{split}/"), text) for file, text in rows.items()), images / split / "metadata.csv"
        )
    if content.entries:
        (folder / "provenance").mkdir()
        write_provenance(content.entries, folder / dataset.PROVENANCE)
    return dataset.write(store, folder, name=name, parents=content.parents, recipe=content.recipe).path
