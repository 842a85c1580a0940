"""The data set on disk, in the form that `datasets` loads: images with a metadata.csv beside them, and provenance."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import structlog

from service import stopping
from service.artifacts.kinds.dataset import (
    IMAGEFOLDER,
    METADATA,
    PROVENANCE,
    SPLITS,
    Provenance,
    write_metadata,
    write_provenance,
)
from service.dataset.candidates import Record
from service.dataset.images.screening import pixel_hash
from service.exits import BadData
from service.storage.disk import disk_errors
from service.storage.parallel import for_each

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """An image of the data set: its split, its file inside the split's folder, its caption, and where it came from."""

    split: str
    file_name: str
    caption: str
    record: Record


def write_dataset(
    folder: Path,
    records: Sequence[Record],
    *,
    captions: Mapping[str, str],
    validation: Collection[str],
    download: Callable[[Record, Path], None],
) -> list[DatasetRow]:
    """Writes imagefolder and provenance into `folder` and gives the rows.

    `captions` is by sha256, `validation` holds the sha256 of the images to hold out, `download` writes the image of a
    record to a file.
    """
    accepted = [record for record in records if record.reason is None]
    rows = [_row_of(index, record, captions, validation) for index, record in enumerate(accepted)]
    images = folder / IMAGEFOLDER

    def gather(row: DatasetRow) -> None:
        stopping.check()
        download(row.record, images / row.split / row.file_name)

    with disk_errors(folder, "WORK_DIR"):
        for split in SPLITS:
            (images / split).mkdir(parents=True)
        for_each(gather, rows, "gathering images")
        for split in SPLITS:
            write_metadata(
                ((row.file_name, row.caption) for row in rows if row.split == split), images / split / METADATA
            )
        (folder / PROVENANCE).parent.mkdir()
        files = {row.record.candidate.rank: f"{row.split}/{row.file_name}" for row in rows}
        entries = (_provenance(record, files.get(record.candidate.rank)) for record in records)
        write_provenance(entries, folder / PROVENANCE)
    return rows


def _row_of(index: int, record: Record, captions: Mapping[str, str], validation: Collection[str]) -> DatasetRow:
    split = "validation" if record.sha256 in validation else "train"
    # Nothing of the origin's name: a name with the word "train" or "test" would make a split of its own when loaded.
    return DatasetRow(split, f"{index:06}_{record.sha256[:12]}.png", captions[record.sha256], record)


def _provenance(record: Record, file_name: str | None) -> Provenance:
    """All that is known of a candidate, and its file below imagefolder when it was accepted."""
    candidate, features = record.candidate, record.features
    known: dict[str, Any] = {} if features is None else asdict(features)
    if features is not None:
        del known["lossless"]  # which only decides between images that look alike
        known |= {
            "phash": f"{features.phash:016x}",
            "dhash": f"{features.dhash:016x}",
            "colour": f"{features.colour:06x}",
        }
    return Provenance(
        origin=candidate.origin,
        reason=record.reason,
        detail=record.detail,
        file_name=file_name,
        page=candidate.page,
        query=candidate.query,
        rank=candidate.rank,
        licence=candidate.licence,
        kept=record.kept,
        **known,
    )


def write_caption_files(folder: Path, rows: Sequence[DatasetRow]) -> None:
    """Writes each caption beside its image, as programs read them that know no metadata.csv."""
    with disk_errors(folder, "WORK_DIR"):
        for row in rows:
            image = folder / IMAGEFOLDER / row.split / row.file_name
            image.with_suffix(".txt").write_text(row.caption, encoding="utf-8")


def check_loads_back(folder: Path, rows: Sequence[DatasetRow], cache_dir: Path) -> None:
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
        _compare(loaded[split], [row for row in rows if row.split == split], split)
    log.info("data set loads back", **{split: len(loaded[split]) for split in SPLITS})


def _compare(loaded: datasets.Dataset, rows: Sequence[DatasetRow], split: str) -> None:
    if len(loaded) != len(rows):
        raise BadData(f"{split} loads back with {len(loaded)} images instead of {len(rows)}")
    for index, row in enumerate(stopping.interruptible(rows)):
        try:
            example = loaded[index]
            same = pixel_hash(example["image"].convert("RGB")) == row.record.sha256
        except (OSError, SyntaxError) as error:
            raise BadData(f"{split}/{row.file_name} does not decode: {error}") from error
        if not same:
            raise BadData(f"{split}/{row.file_name} loads back as another image")
        if example["caption"] != row.caption:
            raise BadData(f"the caption of {split}/{row.file_name} loads back as {example['caption']!r}")
