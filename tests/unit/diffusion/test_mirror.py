"""What of a model is mirrored, and that a copy is told from a wrong one."""

import hashlib
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from service.diffusion.hub import HubFile
from service.diffusion.mirror import check_complete, needed, unpickled
from service.exits import BadData, MissingInput


def names(*paths: str) -> list[str]:
    return [file.path for file in needed([HubFile(path, 1, None, "0" * 40) for path in paths])]


def test_of_a_model_in_parts_the_parts_are_taken_and_no_other_form_of_the_same_weights() -> None:
    assert names(
        "README.md", "model_index.json", "v1-5-pruned.safetensors", "v1-5-pruned-emaonly.ckpt", "v1-inference.yaml",
        "safety_checker/config.json", "safety_checker/model.safetensors", "feature_extractor/preprocessor_config.json",
        "scheduler/scheduler_config.json", "tokenizer/vocab.json", "tokenizer/merges.txt", "text_encoder/config.json",
        "text_encoder/model.safetensors", "text_encoder/model.fp16.safetensors", "text_encoder/pytorch_model.bin",
        "unet/config.json", "unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.fp16.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.non_ema.safetensors",
        "unet/diffusion_pytorch_model.safetensors", "unet/flax_model.msgpack", "deeper/than/that.json",
    ) == [
        "feature_extractor/preprocessor_config.json", "model_index.json", "scheduler/scheduler_config.json",
        "text_encoder/config.json", "text_encoder/model.safetensors", "tokenizer/merges.txt", "tokenizer/vocab.json",
        "unet/config.json", "unet/diffusion_pytorch_model.safetensors",
    ]  # fmt: skip


def test_of_a_model_in_one_folder_what_lies_there_is_taken() -> None:
    assert names(
        "README.md", "config.json", "merges.txt", "vocab.json", "preprocessor_config.json", "model.safetensors",
        "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "onnx/model.onnx", "onnx/config.json",
    ) == ["config.json", "merges.txt", "model.safetensors", "preprocessor_config.json", "vocab.json"]  # fmt: skip


def test_weights_in_several_files_come_with_their_index_and_without_that_of_the_pickles() -> None:
    parts = [f"model-0000{part}-of-00002.safetensors" for part in (1, 2)]
    pickles = ["pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"]
    assert names("config.json", *parts, "model.safetensors.index.json", *pickles) == [
        "config.json",
        *parts,
        "model.safetensors.index.json",
    ]


def test_a_pickle_is_taken_where_there_is_nothing_else() -> None:
    assert names("config.json", "pytorch_model.bin", "tf_model.h5") == ["config.json", "pytorch_model.bin"]
    assert names("config.json", "diffusion_pytorch_model.bin") == ["config.json", "diffusion_pytorch_model.bin"]


def test_a_model_without_weights_is_missing_input_and_one_without_hashes_cannot_be_checked() -> None:
    with pytest.raises(MissingInput, match="MODEL_CLIP=a/b"):
        check_complete([HubFile("config.json", 1, None, "0" * 40)], "MODEL_CLIP=a/b")
    with pytest.raises(BadData, match="no hash of model"):
        check_complete([HubFile("model.safetensors", 1, None, None)], "MODEL_CLIP=a/b")


def test_a_copy_is_told_from_a_wrong_one_by_the_hash_that_the_hub_has_of_it(tmp_path: Path) -> None:
    content, copy = b"some\ntext", tmp_path / "copy"
    # What `git hash-object` gives for it.
    small = HubFile("config.json", len(content), None, hashlib.sha1(b"blob 9\0" + content).hexdigest())
    # Of a large file the blob is the pointer to it, whose hash says nothing of a copy.
    large = HubFile("model.safetensors", len(content), hashlib.sha256(content).hexdigest(), "0" * 40)
    for file in (small, large):
        assert not file.is_whole(copy)
        copy.write_bytes(content)
        assert file.is_whole(copy)
        for wrong in (b"some\nTEXT", content + b"!", content[:-1], b""):
            copy.write_bytes(wrong)
            assert not file.is_whole(copy)
        copy.unlink()


def test_a_known_text_has_the_hash_that_git_gives_it(tmp_path: Path) -> None:
    (tmp_path / "copy").write_bytes(b"hello\n")
    assert HubFile("x", 6, None, "ce013625030ba8dba906f756967f9e9ca394464a").is_whole(tmp_path / "copy")


def test_out_of_a_pickle_come_the_very_tensors_also_those_that_share_their_memory(tmp_path: Path) -> None:
    shared = torch.arange(12.0).reshape(3, 4)
    tensors = {"a": shared, "b": shared, "turned": shared.T, "whole": torch.tensor([1, 2]), "half": shared.half()}
    (tmp_path / "unet").mkdir()
    torch.save(tensors, tmp_path / "unet" / "diffusion_pytorch_model.bin")
    assert unpickled(tmp_path) == {
        "unet/diffusion_pytorch_model.safetensors": "unet/diffusion_pytorch_model.bin",
    }
    assert [path.name for path in (tmp_path / "unet").iterdir()] == ["diffusion_pytorch_model.safetensors"]
    read = load_file(tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensor) and read[name].dtype == tensor.dtype for name, tensor in tensors.items())


class Evil:
    """What runs when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("ran"),)  # type: ignore[return-value]


@pytest.mark.parametrize("content", ["evil", "list", "nested", "none"])
def test_a_pickle_with_anything_but_tensors_is_refused_and_never_run(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "model" / "pytorch_model.bin"
    file.parent.mkdir()
    if content == "evil":
        file.write_bytes(pickle.dumps(Evil(), protocol=2))
    elif content == "none":
        file.write_bytes(b"no pickle at all")
    else:
        torch.save([torch.zeros(1)] if content == "list" else {"state": {"a": torch.zeros(1)}}, file)
    with pytest.raises(BadData, match="it is not mirrored"):
        unpickled(tmp_path / "model")
    assert not (tmp_path / "ran").exists()
