"""Rows of tensors that are computed once: Arrow files in the store, keyed by content, memory-mapped when they are read."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import structlog
import torch
from torch import Tensor

from service.artifacts.fetching import fetch
from service.artifacts.kinds import rows as published
from service.artifacts.manifest import MANIFEST_NAME
from service.artifacts.publishing import list_artifacts
from service.exits import BadData
from service.storage.interface import ObjectStore
from service.storage.scratch import scratch_folder

log = structlog.get_logger(__name__)

ROWS_A_PART = 1024
"""Rows of one artifact: what a job that is killed has to compute again at most, and one manifest's list of keys."""
ROWS_A_BATCH = 64

CachedRow = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a row is: in which part, which record batch of it, and which row there."""

    part: int
    batch: int
    row: int


class RowCache:
    """The rows below one prefix of the store. Any number of runs and processes may read and add at the same time.

    A row is some float32 tensors by name, each of a shape of its own, under a key that stands for all that they were
    computed from. Rows never change; they come in parts, each an artifact of its own. `names` are those of the tensors.
    """

    def __init__(self, store: ObjectStore, prefix: str, names: Sequence[str], work_dir: Path) -> None:
        self._store = store
        self._prefix = prefix
        self._names = tuple(names)
        self._work_dir = work_dir
        self._parts: list[list[pa.RecordBatch]] = []
        self._mapped: set[str] = set()
        self._places: dict[str, _Place] = {}

    def open(self, keys: Iterable[str]) -> list[str]:
        """Maps the parts that hold any of `keys`; returns the keys that no part holds, in their order, each once."""
        wanted = dict.fromkeys(keys)
        missing = {key for key in wanted if key not in self._places}
        for path in list_artifacts(self._store, self._prefix) if missing else ():
            if path not in self._mapped and missing & published.read(self._store, path).keys:
                self._map(path)
                missing -= self._places.keys()
        return [key for key in wanted if key in missing]

    def add(self, rows: Iterable[tuple[str, CachedRow]]) -> None:
        """Publishes rows, part by part as they come. They are seen at the next `open`."""
        rows = iter(rows)
        while part := list(islice(rows, ROWS_A_PART)):
            with scratch_folder(self._work_dir) as folder:
                _write_rows(folder / published.FILE, self._names, part)
                published.write(self._store, folder, prefix=self._prefix, keys=[key for key, _ in part])

    def __getitem__(self, key: str) -> dict[str, Tensor]:
        """The tensors of a row, copied out of the mapped file."""
        place = self._places[key]
        batch = self._parts[place.part][place.batch]
        return {name: _tensor_of(batch, place.row, number, name) for number, name in enumerate(self._names)}

    def _map(self, path: str) -> None:
        try:
            folder = fetch(self._store, path, self._work_dir)
        except BadData as error:
            # Its manifest goes, so that the same rows can be published in its place once they are computed again.
            log.warning("damaged cache set aside", path=path, reason=str(error))
            self._store.delete(f"{path}/{MANIFEST_NAME}")
            return
        batches = _read_rows(folder / published.FILE)
        for number, batch in enumerate(batches):
            for row, key in enumerate(batch.column("key").to_pylist()):
                self._places.setdefault(key, _Place(len(self._parts), number, row))
        self._parts.append(batches)
        self._mapped.add(path)


def _write_rows(file: Path, names: Sequence[str], rows: Sequence[tuple[str, CachedRow]]) -> None:
    """An Arrow stream, as `datasets.Dataset.from_file` reads it too: `key`, and `NAME` and `NAME.shape` of each tensor."""
    kinds = {"": pa.list_(pa.float32()), ".shape": pa.list_(pa.int32())}
    columns = [(name + end, kind) for name in names for end, kind in kinds.items()]
    schema = pa.schema([("key", pa.string()), *columns])
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for start in range(0, len(rows), ROWS_A_BATCH):
            some = rows[start : start + ROWS_A_BATCH]
            arrays = [pa.array([key for key, _ in some], pa.string())]
            for name in names:
                tensors = [row[name] for _, row in some]
                arrays += [_flat_lists(tensors), pa.array([list(t.shape) for t in tensors], kinds[".shape"])]
            writer.write_batch(pa.record_batch(arrays, schema=schema))


def _tensor_of(batch: pa.RecordBatch, row: int, number: int, name: str) -> Tensor:
    """The tensor `name` of a row, copied out of the mapped file; `number` is its place among the tensors of the row."""
    shape = f"{name}.shape"
    if shape not in batch.schema.names:
        # Older files: `key`, one `shape` for all, and the tensors in the same order under whatever names.
        shape, name = "shape", batch.schema.names[2 + number]
    values, sides = (batch.column(column)[row].values.to_numpy() for column in (name, shape))
    return torch.from_numpy(values.reshape(sides).copy())


def _flat_lists(tensors: Sequence[Tensor]) -> pa.ListArray:
    values = [tensor.float().contiguous().numpy().ravel() for tensor in tensors]
    offsets = np.cumsum([0, *(len(value) for value in values)], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(values), pa.float32()))


def _read_rows(file: Path) -> list[pa.RecordBatch]:
    """The record batches of a file, mapped into memory: pages are read when they are touched, and can be dropped again."""
    with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as reader:
        return list(reader)
