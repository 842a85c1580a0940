"""A data set: images and captions as an imagefolder that `datasets` loads, where they came from, and a page about it."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from service.artifacts import layout
from service.artifacts.kinds.kind import Statement
from service.artifacts.publishing import Artifact, publish_version, read_manifest
from service.exits import BadData
from service.stopping import never_stop
from service.storage.interface import ObjectStore

IMAGEFOLDER = "imagefolder"
METADATA = "metadata.csv"
COLUMNS = ("file_name", "caption")
PROVENANCE = "provenance/candidates.jsonl"
REPORT = "report/index.html"

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = get_args(Split)


FILES = {
    f"{IMAGEFOLDER}/{{train,validation}}/*.png": "The images, lossless, in the size of the data set.",
    f"{IMAGEFOLDER}/{{train,validation}}/{METADATA}": "`file_name` and `caption` of each image; UTF-8, one line a row.",
    PROVENANCE: "A line of JSON for each candidate that the source gave: where it came from, and what became of it.",
    REPORT: "A page for people.",
}


class Dataset(Statement):
    """A published data set. Its parents are the data sets, below ARTIFACTS_URI, that its images were taken from."""

    KIND = "dataset"

    @property
    def style(self) -> str:
        """The phrase that opens each caption; empty for captions without one."""
        return str(self.recipe.get("style") or "")


class Provenance(BaseModel):
    """All that is known of one candidate, accepted or not: a line of provenance/candidates.jsonl.

    From `sha256` on only of candidates that were decoded.
    """

    model_config = ConfigDict(frozen=True)

    origin: str = Field(description="Address or path of the image.")
    reason: str | None = Field(description="Why it was left out; null for an image of the data set.")
    detail: str = Field(description="The same with figures, or what a server answered.")
    file_name: str | None = Field(description="Its file below imagefolder/; null where it was left out.")
    page: str | None = Field(description="The page that shows it.")
    query: str | None = Field(description="The query that found it.")
    rank: int = Field(description="Its place in the order of the source.")
    licence: str | None = Field(description="The licence that the search was limited to.")
    kept: str | None = Field(description="Of a duplicate: origin of the image that was kept.")
    sha256: str = Field("", description="Hash of its pixels after resizing.")
    source_sha256: str = Field(
        "", description="Hash of the file as it came; empty where an older version collected it."
    )
    width: int = Field(0, description="Width in the data set, in pixels.")
    height: int = Field(0, description="Height in the data set, in pixels.")
    source_width: int = Field(0, description="Width as it was found, in pixels.")
    source_height: int = Field(0, description="Height as it was found, in pixels.")
    phash: str = Field("", description="Perceptual hash, 64 bits in hexadecimal.")
    dhash: str = Field("", description="Difference hash, 64 bits in hexadecimal.")
    colour: str = Field("", description="Mean colour, RRGGBB in hexadecimal.")
    animated: bool = Field(False, description="Whether it had more than one frame; the first was taken.")
    relevance: float | None = Field(
        None, description="Similarity to the query by CLIP; null where it was not measured."
    )


def write(
    store: ObjectStore,
    folder: Path,
    *,
    name: str,
    parents: Sequence[str],
    recipe: dict[str, Any],
    stop_check: Callable[[], None] = never_stop,
) -> Artifact:
    """Publishes the data set in `folder` under its name and the hash of its content."""
    return publish_version(
        store,
        folder,
        kind=Dataset.KIND,
        kind_schema=Dataset.SCHEMA,
        prefix=layout.DatasetVersions(name).path,
        parents=parents,
        settings=recipe,
        stop_check=stop_check,
    )


def read(store: ObjectStore, path: str) -> Dataset:
    """What the data set at `path` says of itself."""
    return Dataset.read(store, path)


def sizes(store: ObjectStore, path: str) -> dict[Split, int]:
    """How many images each split of the data set at `path` has, by its manifest."""
    files = [file.path for file in read_manifest(store, path).files]
    return {
        split: sum(file.startswith(f"{IMAGEFOLDER}/{split}/") and file.endswith(".png") for file in files)
        for split in SPLITS
    }


def write_metadata(rows: Iterable[tuple[str, str]], file: Path) -> None:
    """Writes metadata.csv of a split: (file name inside the split's folder, caption), a row each."""
    with file.open("w", encoding="utf-8", newline="") as sink:
        writer = csv.writer(sink, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)


def read_metadata(dataset: Path, split: Split) -> list[tuple[Path, str]]:
    """File and caption of each image of a split, in the order of its metadata.csv. `dataset`: the fetched folder.

    Raises BadData for a folder without it, and for an image without file or caption.
    """
    folder = dataset / IMAGEFOLDER / split
    if not (folder / METADATA).exists():
        raise BadData(f"{dataset} is no data set with a split {split!r}: {METADATA} is missing there")
    with (folder / METADATA).open(newline="", encoding="utf-8") as lines:
        rows = [(folder / row["file_name"], row["caption"] or "") for row in csv.DictReader(lines)]
    for file, caption in rows:
        if not caption:
            raise BadData(f"{split}/{file.name} has no caption in {METADATA}")
        if not file.exists():
            raise BadData(f"{split}/{file.name} stands in {METADATA} and does not exist")
    return rows


def metadata_name(split: Split) -> str:
    """Path of the metadata.csv of a split below the data set."""
    return f"{IMAGEFOLDER}/{split}/{METADATA}"


def captions_of(metadata: bytes, where: str) -> dict[str, str]:
    """The captions that a metadata.csv holds, by file name inside the split's folder, in its order.

    Raises BadData, with `where`, for what is no such table.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(metadata.decode("utf-8"), newline="")))
        return {row["file_name"]: row["caption"] or "" for row in rows}
    except (ValueError, KeyError) as error:
        raise BadData(f"{METADATA} of {where} is no table with the columns {', '.join(COLUMNS)}") from error


def write_provenance(entries: Iterable[Provenance], file: Path) -> None:
    """A line for each candidate; what is not known of one stays out of its line."""
    with file.open("w", encoding="utf-8") as sink:
        for entry in entries:
            sink.write(json.dumps(entry.model_dump(mode="json", exclude_unset=True)) + "\n")


def read_provenance(dataset: Path) -> list[Provenance]:
    """All candidates, in the order of the source. Raises BadData, with the line, for what is no provenance."""
    return provenance_of((dataset / PROVENANCE).read_bytes(), str(dataset))


def provenance_of(content: bytes, where: str) -> list[Provenance]:
    """What a provenance file holds; raises BadData, with the line and `where`, for what is no candidate."""
    entries = []
    for number, line in enumerate(content.splitlines(), 1):
        try:
            entries.append(Provenance.model_validate_json(line))
        except ValueError as error:
            raise BadData(f"line {number} of {PROVENANCE} in {where} is no candidate") from error
    return entries


def host_of(origin: str) -> str:
    """The host of a URL; empty for a file and for what is no URL."""
    try:
        return urlsplit(origin).hostname or ""
    except ValueError:
        return ""
