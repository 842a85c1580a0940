"""A LoRA that another program trained: drawn with, and judged against a data set of ours."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from service.artifacts.fetching import fetch
from service.artifacts.kinds.evaluation import read_json
from service.artifacts.publishing import read_manifest
from service.diffusion.lora import WEIGHTS_NAME
from service.diffusion.sd15.lora_files import ELSEWHERE
from service.exits import BadData, MissingInput
from service.jobs.evaluate import evaluate
from service.jobs.infer import infer
from service.settings.demo import DEMO_VARIABLES
from service.settings.evaluate import EvaluateSettings
from service.settings.infer import InferSettings
from service.storage.interface import ObjectStore
from service.storage.opening import open_store
from tests.conftest import use
from tests.integration.chain import SMALL
from tests.servers import S3Server


@pytest.fixture
def store(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """The data set of a run, without its LoRA."""
    shutil.copytree(trained / "artifacts", tmp_path / "artifacts")
    shutil.rmtree(tmp_path / "artifacts" / "runs" / "demo" / "lora")
    for name, value in (DEMO_VARIABLES | SMALL).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ARTIFACTS_URI", str(tmp_path / "artifacts"))
    monkeypatch.setenv("WORK_DIR", str(tmp_path / "work"))
    return open_store(str(tmp_path / "artifacts"))


@pytest.fixture
def stranger(trained: Path, tmp_path: Path) -> Path:
    """A file as any program leaves it: under a name of its own, with nothing beside it and no facts in its header."""
    file = tmp_path / "somebody's style v2.safetensors"
    save_file(load_file(trained / "artifacts" / "runs" / "demo" / "lora" / WEIGHTS_NAME), file)
    return file


@pytest.mark.parametrize("form", [WEIGHTS_NAME, f"{ELSEWHERE}/demo.safetensors"])
def test_a_file_of_either_form_draws_what_the_run_that_trained_it_draws(
    form: str, store: ObjectStore, trained: Path, tmp_path: Path
) -> None:
    file = tmp_path / "style.safetensors"
    shutil.copy(trained / "artifacts" / "runs" / "demo" / "lora" / form, file)
    images = infer(InferSettings(lora=str(file)))
    own = tmp_path / "own"
    shutil.copytree(trained / "artifacts", own)
    expected = infer(InferSettings(artifacts_uri=str(own)))
    ours, theirs = (np.asarray(Image.open(root / "lora" / "00000.png"), np.int16)
                    for root in (tmp_path / "artifacts" / images, own / expected))  # fmt: skip
    assert np.abs(ours - theirs).mean() < 1
    lora = read_manifest(store, images).parents[0]
    assert lora.startswith("loras/")
    assert read_manifest(store, lora).settings == {"file": "style.safetensors"}


def test_a_file_is_judged_against_the_data_set_of_the_run_and_is_the_same_wherever_it_lies(
    store: ObjectStore, stranger: Path, tmp_path: Path
) -> None:
    path = evaluate(EvaluateSettings(lora=str(stranger)))
    found = read_json(fetch(store, path, tmp_path))
    assert found.dataset.startswith("datasets/")
    assert found.lora.startswith("loras/")
    assert found.finding("liveness").lora is not None
    moved = shutil.move(stranger, tmp_path / "moved.safetensors")
    assert evaluate(EvaluateSettings(lora=str(moved))) == path
    assert evaluate(EvaluateSettings(lora=found.lora, dataset=found.dataset)) == path


def test_a_file_in_a_bucket_is_taken_as_one_on_disk_is(
    store: ObjectStore, stranger: Path, moto: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = moto.new_bucket()
    use(moto, monkeypatch)
    open_store(f"s3://{bucket}/loras").put("style.safetensors", stranger)
    from_bucket = infer(InferSettings(lora=f"s3://{bucket}/loras/style.safetensors"))
    assert infer(InferSettings(lora=str(stranger))) == from_bucket
    assert len({entry.key.split("/")[1] for entry in store.list("loras/")}) == 1


def test_what_is_no_lora_is_bad_data_and_what_is_not_there_is_missing(store: ObjectStore, stranger: Path) -> None:
    with pytest.raises(MissingInput, match=r"nowhere\.safetensors"):
        infer(InferSettings(lora="nowhere.safetensors"))
    weights = load_file(stranger)
    save_file({name.replace("lora", "layer"): tensor for name, tensor in weights.items()}, stranger)
    with pytest.raises(BadData, match="is no LoRA"):
        infer(InferSettings(lora=str(stranger)))
    next(iter(weights.values())).view(-1)[0] = float("nan")
    save_file(weights, stranger)
    with pytest.raises(BadData, match="not finite"):
        infer(InferSettings(lora=str(stranger)))
    assert not list(store.list("loras/"))
