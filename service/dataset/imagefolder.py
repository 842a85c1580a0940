"""The data set on disk, in the form that `datasets` loads: images with a metadata.csv beside them, and provenance."""

import csv
import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import structlog

from service.artifacts.disk import disk_errors
from service.dataset.candidates import Record
from service.dataset.screening import pixel_hash
from service.exits import BadData

IMAGEFOLDER = "imagefolder"
PROVENANCE = "provenance/candidates.jsonl"
SPLITS = ("train", "validation")
COLUMNS = ("file_name", "caption")

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Row:
    """An image of the data set: its split, its file inside the split's folder, its sha256 and its caption."""

    split: str
    file_name: str
    sha256: str
    caption: str


def write_dataset(
    records: Sequence[Record], captions: Mapping[str, str], validation: Collection[str], folder: Path
) -> list[Row]:
    """Writes imagefolder and provenance into `folder` and gives the rows. The images are moved, not copied.

    `captions` is by sha256, `validation` holds the sha256 of the images to hold out.
    """
    rows: list[Row] = []
    lines: list[str] = []
    with disk_errors(folder, "WORK_DIR"):
        for split in SPLITS:
            (folder / IMAGEFOLDER / split).mkdir(parents=True)
        for record in records:
            row = None
            if record.image is not None and record.sha256 is not None:
                row = row_of(len(rows), record.sha256, captions[record.sha256], validation)
                shutil.move(record.image, folder / IMAGEFOLDER / row.split / row.file_name)
                rows.append(row)
            lines.append(provenance(record, row))
        for split in SPLITS:
            write_metadata([row for row in rows if row.split == split], folder / IMAGEFOLDER / split / "metadata.csv")
        (folder / PROVENANCE).parent.mkdir()
        (folder / PROVENANCE).write_text("".join(lines), encoding="utf-8")
    return rows


def row_of(index: int, sha256: str, caption: str, validation: Collection[str]) -> Row:
    split = "validation" if sha256 in validation else "train"
    # Nothing of the origin's name: a name with the word "train" or "test" would make a split of its own when loaded.
    return Row(split, f"{index:06}_{sha256[:12]}.png", sha256, caption)


def provenance(record: Record, row: Row | None) -> str:
    """The line of a candidate."""
    entry = {
        "origin": record.origin,
        "reason": record.reason,
        "file_name": f"{row.split}/{row.file_name}" if row else None,
        "sha256": record.sha256,
        "width": record.width,
        "height": record.height,
    }
    return json.dumps(entry) + "\n"


def write_metadata(rows: Sequence[Row], file: Path) -> None:
    with file.open("w", encoding="utf-8", newline="") as sink:
        writer = csv.writer(sink, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((row.file_name, row.caption) for row in rows)


def check_loads_back(folder: Path, rows: Sequence[Row], cache_dir: Path) -> None:
    """Loads the data set as its readers do and compares every pixel and caption; raises BadData for any difference.

    `datasets` drops images without a row, reads some captions as nothing, and finds a broken image only on decoding.
    """
    # Without explicit features a column of captions like "8" would become numbers.
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    datasets.disable_progress_bars()
    try:
        loaded = datasets.load_dataset(
            IMAGEFOLDER, data_dir=str(folder / IMAGEFOLDER), features=features, cache_dir=str(cache_dir)
        )
    except datasets.exceptions.DatasetGenerationError as error:
        raise BadData(f"the data set does not load back: {error.__cause__ or error}") from error
    if sorted(loaded) != sorted(SPLITS):
        raise BadData(f"the data set loads back with the splits {', '.join(sorted(loaded))}")
    for split in SPLITS:
        compare(loaded[split], [row for row in rows if row.split == split], split)
    log.info("data set loads back", **{split: len(loaded[split]) for split in SPLITS})


def compare(loaded: datasets.Dataset, rows: Sequence[Row], split: str) -> None:
    if len(loaded) != len(rows):
        raise BadData(f"{split} loads back with {len(loaded)} images instead of {len(rows)}")
    for index, row in enumerate(rows):
        try:
            example = loaded[index]
            same = pixel_hash(example["image"].convert("RGB")) == row.sha256
        except (OSError, SyntaxError) as error:
            raise BadData(f"{split}/{row.file_name} does not decode: {error}") from error
        if not same:
            raise BadData(f"{split}/{row.file_name} loads back as another image")
        if example["caption"] != row.caption:
            raise BadData(f"the caption of {split}/{row.file_name} loads back as {example['caption']!r}")
