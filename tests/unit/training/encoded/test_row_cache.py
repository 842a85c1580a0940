"""Rows that are computed once, and read by whoever needs them."""

from pathlib import Path

import datasets
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from service.artifacts.publishing import list_artifacts, publish_version
from service.storage.interface import ObjectStore
from service.storage.opening import open_store
from service.training.encoded.row_cache import ROWS_A_PART, RowCache

NAMES = ("mean", "deviation")


def row(key: str, shape: tuple[int, ...] = (4, 2, 3)) -> tuple[str, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(int(key))
    return key, {name: torch.randn(shape, generator=generator) for name in NAMES}


def cache(store: ObjectStore, folder: Path) -> RowCache:
    return RowCache(store, "cache/latents/abc", NAMES, folder)


def test_what_one_run_adds_another_reads_bit_for_bit_on_every_kind_of_store(store_uri: str, tmp_path: Path) -> None:
    first = cache(open_store(store_uri), tmp_path / "first")
    keys = [str(number) for number in range(5)]
    assert first.open(keys) == keys
    first.add(row(key, (4, 2, 3) if key != "3" else (4, 3, 2)) for key in keys)
    second = cache(open_store(store_uri), tmp_path / "second")
    assert second.open(["4", "3", "9", "9"]) == ["9"]
    for key, shape in (("4", (4, 2, 3)), ("3", (4, 3, 2))):
        expected = row(key, shape)[1]
        found = second[key]
        assert all(torch.equal(found[name], expected[name]) for name in NAMES)


def test_only_the_rows_that_are_missing_are_asked_for(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "artifacts"))
    cache(store, tmp_path).add([row("1"), row("2")])
    again = cache(store, tmp_path)
    assert again.open(["1", "2", "3"]) == ["3"]
    again.add([row("3")])
    assert again.open(["1", "2", "3"]) == []


def test_parts_that_hold_nothing_of_use_are_not_fetched(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "artifacts"))
    for key in ("1", "2"):
        cache(store, tmp_path).add([row(key)])
    part = next(path for path in (tmp_path / "artifacts").rglob("rows.arrow") if b"\x011" not in path.read_bytes())
    reader = cache(store, tmp_path)
    reader.open(["1"])
    with pytest.raises(KeyError):
        reader["2"]
    assert part.exists()


def test_many_rows_come_in_parts_so_that_a_job_that_is_killed_loses_one_at_most(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "artifacts"))
    computed = 0

    def rows() -> object:
        nonlocal computed
        for number in range(ROWS_A_PART + 10):
            if number == ROWS_A_PART + 5:
                raise KeyboardInterrupt
            computed += 1
            yield row(str(number), (1,))

    with pytest.raises(KeyboardInterrupt):
        cache(store, tmp_path).add(rows())
    keys = [str(number) for number in range(ROWS_A_PART + 10)]
    assert cache(store, tmp_path).open(keys) == keys[ROWS_A_PART:]


def test_a_damaged_part_is_set_aside_and_computed_again(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "artifacts"))
    cache(store, tmp_path).add([row("1"), row("2")])
    [file] = (tmp_path / "artifacts").rglob("rows.arrow")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    again = cache(store, tmp_path)
    assert again.open(["1", "2"]) == ["1", "2"]
    again.add([row("1"), row("2")])
    assert again.open(["1", "2"]) == []
    assert torch.equal(again["2"]["mean"], row("2")[1]["mean"])
    assert len(list_artifacts(store, "cache")) == 1


def test_two_processes_that_compute_the_same_rows_publish_them_once(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "artifacts"))
    for name in ("a", "b"):
        cache(store, tmp_path / name).add([row("1"), row("2")])
    assert len(list_artifacts(store, "cache")) == 1


def test_tensors_of_different_shapes_share_a_row(tmp_path: Path) -> None:
    store, names = open_store(str(tmp_path / "artifacts")), ("states", "pooled", "size")
    rows = [
        (key, {"states": torch.randn(length, 4), "pooled": torch.randn(4), "size": torch.tensor([float(length), 2.0])})
        for key, length in (("a", 3), ("b", 5))
    ]
    RowCache(store, "cache/prompts/abc", names, tmp_path).add(rows)
    reader = RowCache(store, "cache/prompts/abc", names, tmp_path)
    assert reader.open(["a", "b"]) == []
    for key, expected in rows:
        found = reader[key]
        assert list(found) == list(names)
        assert all(torch.equal(found[name], expected[name]) for name in names)


@pytest.mark.parametrize(("old", "new"), [(("mean", "deviation"), NAMES), (("condition",), ("encoder_hidden_states",))])
def test_rows_that_were_written_with_one_shape_for_all_are_still_read(
    old: tuple[str, ...], new: tuple[str, ...], tmp_path: Path
) -> None:
    tensors = [torch.randn(2, 3) for _ in old]
    floats = pa.list_(pa.float32())
    schema = pa.schema([("key", pa.string()), ("shape", pa.list_(pa.int32())), *((name, floats) for name in old)])
    folder = tmp_path / "part"
    folder.mkdir()
    with pa.OSFile(str(folder / "rows.arrow"), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        arrays = [["1"], [[2, 3]], *([tensor.flatten().tolist()] for tensor in tensors)]
        columns = [pa.array(values, field.type) for values, field in zip(arrays, schema, strict=True)]
        writer.write_batch(pa.record_batch(columns, schema=schema))
    store = open_store(str(tmp_path / "artifacts"))
    publish_version(store, folder, kind="cache", prefix="cache/prompts/abc", settings={"keys": ["1"]})
    reader = RowCache(store, "cache/prompts/abc", new, tmp_path)
    assert reader.open(["1"]) == []
    assert all(torch.equal(found, tensor) for found, tensor in zip(reader["1"].values(), tensors, strict=True))


def test_the_file_is_one_that_the_datasets_library_opens(tmp_path: Path) -> None:
    cache(open_store(str(tmp_path / "artifacts")), tmp_path).add([row("7")])
    [file] = (tmp_path / "artifacts").rglob("rows.arrow")
    found = datasets.Dataset.from_file(str(file))
    assert found[0]["key"] == "7"
    assert found[0]["mean.shape"] == [4, 2, 3]
