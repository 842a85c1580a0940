"""What stands in the head of a file of weights."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from service.artifacts.header import complete_header
from tests.unit.diffusion.building import header_of


@pytest.mark.parametrize("before", [None, {"format": "pt"}])
def test_facts_and_hashes_are_added_and_the_tensors_stay(before: dict[str, str] | None, tmp_path: Path) -> None:
    file, tensors = tmp_path / "a.safetensors", {"a": torch.randn(3, 5), "b": torch.ones(2)}
    save_file(tensors, file, metadata=before)
    complete_header(file, {"modelspec.title": "ours"})
    again = load_file(file)
    assert all(torch.equal(again[name], tensor) for name, tensor in tensors.items())
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    digest = hashlib.sha256(content[8 + length :]).hexdigest()
    assert (8 + length) % 8 == 0
    expected = {"modelspec.title": "ours", "modelspec.hash_sha256": f"0x{digest}", "sshs_model_hash": digest}
    assert header_of(file) == expected | (before or {})
    names = list(json.loads(content[8 : 8 + length])["__metadata__"])
    assert names == sorted(names)


def test_the_hash_is_of_the_tensors_alone(tmp_path: Path) -> None:
    hashes = []
    for title, value in (("one", 1.0), ("two", 1.0), ("one", 2.0)):
        file = tmp_path / "a.safetensors"
        save_file({"a": torch.full((2, 2), value)}, file)
        complete_header(file, {"modelspec.title": title})
        hashes.append(header_of(file)["modelspec.hash_sha256"])
    assert hashes[0] == hashes[1] != hashes[2]
