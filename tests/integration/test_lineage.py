"""What came of what, in a store that the jobs themselves have filled."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from service import miniature
from service.__main__ import run
from service.artifacts import layout
from service.artifacts.fetching import fetch
from service.artifacts.history import History, append
from service.artifacts.kinds import lora
from service.artifacts.kinds.exclusions import read_all
from service.artifacts.kinds.registry import Entry
from service.artifacts.manifest import sha256_of
from service.artifacts.publishing import list_artifacts, read_manifest
from service.exits import ExitCode
from service.lineage.listing import provenance
from service.settings.demo import DEMO_VARIABLES
from service.storage.interface import ObjectStore
from service.storage.opening import open_store
from tests.integration.chain import SMALL, finish
from tests.releases import tensors_of

VARIABLES = DEMO_VARIABLES | SMALL
LORA = "runs/demo/lora"


@pytest.fixture(scope="module")
def chain(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run whose LoRA has drawn, was evaluated, and is the champion of a model."""
    folder = Path(shutil.copytree(trained, tmp_path_factory.mktemp("lineage") / "run"))
    for job in ("infer", "evaluate"):
        assert finish(job, folder, VARIABLES).code == ExitCode.DONE
    store = open_store(str(folder / "artifacts"))
    entry = Entry.made_now(lora=LORA, version=read_manifest(store, LORA).version, promotion=1)
    append(store, History.read(store, "style"), entry)
    return folder


@pytest.fixture
def store(chain: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    monkeypatch.setenv("ARTIFACTS_URI", str(chain / "artifacts"))
    monkeypatch.setenv("WORK_DIR", str(chain / "work"))
    return open_store(str(chain / "artifacts"))


def evaluation_of(chain: Path) -> str:
    [path] = (chain / "artifacts" / "runs" / "demo" / "evaluation").iterdir()
    return layout.Evaluation("demo", path.name).path


def traced(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run(["trace", *arguments, "--json"]) == ExitCode.DONE
    return json.loads(capsys.readouterr().out)


def test_an_image_is_traced_from_its_file_to_all_that_a_chain_made_of_it(
    chain: Path, store: ObjectStore, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = lora.read(store, LORA).dataset
    folder = fetch(store, dataset, chain / "work")
    held = next(iter((folder / "imagefolder" / "train").glob("*.png")))
    lines = (folder / "provenance" / "candidates.jsonl").read_text().splitlines()
    [entry] = [line for line in map(json.loads, lines) if line["file_name"] == f"train/{held.name}"]

    file = miniature.SAMPLES / entry["origin"]
    by_name = {name: traced(capsys, name) for name in (str(file), entry["source_sha256"], entry["sha256"], str(held))}
    for found in by_name.values():
        assert [one["path"] for one in found["datasets"]] == [dataset]
        assert f"train/{held.name}" in [image["file_name"] for image in found["datasets"][0]["images"]]
        assert found["loras"] == [LORA]
        assert found["champions"] == [{"model": "style", "number": 1, "lora": LORA, "reigns": True}]
        assert found["evaluations"] == [evaluation_of(chain)]
        # What infer drew, and what evaluate did.
        assert sum(path["path"].startswith("runs/demo/images/") for path in found["drawn"]) == 2
        assert any(path.startswith("runs/demo/checkpoints/") for path in found["others"])
        assert found["unreadable"] == []


def test_an_image_that_is_traced_can_be_withdrawn_in_the_same_breath(
    store: ObjectStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACE_EXCLUDE", "asked for by its owner")
    sample = next(iter(sorted(miniature.SAMPLES.glob("*.png"))))
    found = traced(capsys, str(sample))
    [record] = read_all(store)
    assert record.reason == "asked for by its owner"
    assert set(found["marks"]) <= set(record.images[0].marks)
    traced(capsys, str(sample))
    assert read_all(store) == [record]


def test_what_cannot_be_read_is_65_once_the_rest_is_told(
    chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(chain / "artifacts", tmp_path / "artifacts")
    (tmp_path / "artifacts" / LORA / "MANIFEST.json").write_text("{")
    monkeypatch.setenv("ARTIFACTS_URI", str(tmp_path / "artifacts"))
    assert run(["trace", "f" * 64]) == ExitCode.BAD_DATA
    said = capsys.readouterr()
    assert "unreadable" in said.out
    assert LORA in said.err


def test_an_evaluation_and_its_training_come_out_the_same_again_and_a_difference_is_65(
    chain: Path, tmp_path: Path
) -> None:
    variables = {
        "ARTIFACTS_URI": str(chain / "artifacts"),
        "REPRODUCE_EVALUATION": evaluation_of(chain),
        "REPRODUCE_STORE": str(tmp_path / "again"),
        "OUTCOME_FILE": str(tmp_path / "outcome.json"),
        # Of what decides nothing may come from the environment, and what decides comes from the manifests.
        "TRAIN_RANK": "8",
        "EVALUATE_STEPS": "3",
    }
    end = finish("reproduce", tmp_path / "one", variables)
    assert end.code == ExitCode.DONE, end.last("failed")
    told = json.loads((tmp_path / "outcome.json").read_text())
    assert (told["same"], told["decision_then"]) == (True, told["decision_now"])
    weights = "artifacts/runs/demo/lora/pytorch_lora_weights.safetensors"
    again = tmp_path / "again" / weights.removeprefix("artifacts/")
    assert again.read_bytes() == (chain / weights).read_bytes()

    # A training that came to something else.
    other = open_store(str(tmp_path / "again"))
    manifest = read_manifest(other, LORA)
    shutil.copytree(tmp_path / "again" / LORA, tmp_path / "lora")
    for made in ("lora", "images", "measurements", "evaluation"):
        shutil.rmtree(tmp_path / "again" / "runs" / "demo" / made)
    (tmp_path / "lora" / "MANIFEST.json").unlink()
    (tmp_path / "lora" / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
    lora.write(other, tmp_path / "lora", run_id="demo", dataset=manifest.parents[0], recipe=manifest.settings)
    end = finish("reproduce", tmp_path / "one", variables)
    assert end.code == ExitCode.BAD_DATA
    assert "LoRA" in end.last("failed")["error"]
    assert json.loads((tmp_path / "outcome.json").read_text())["exit_name"] == "BAD_DATA"


def test_a_champion_that_the_jobs_made_tells_its_evidence_and_one_command_takes_it_back_with_its_image(
    chain: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(chain, tmp_path / "run"))
    store, variables = open_store(str(folder / "artifacts")), VARIABLES | {"PROMOTE_MODEL": "released"}
    end = finish("promote", folder, variables | {"PROMOTE_FORCE": "for the test"})
    assert end.code == ExitCode.DONE, end.last("failed")
    copy, original = (fetch(store, path, folder / "work") for path in ("registry/released/champion", LORA))
    found = json.loads((folder / "artifacts" / evaluation_of(chain) / "evaluation.json").read_text())
    files = [file.relative_to(copy) for file in sorted(copy.rglob("*.safetensors"))]
    assert len(files) == 2
    for file in files:
        with safe_open(copy / file, "np") as weights, safe_open(original / file, "np") as before:
            assert json.loads(weights.metadata()["sdlora.findings"]) == found["findings"]
            assert weights.metadata().items() >= before.metadata().items()
            assert list(weights.keys()) == list(before.keys())
        tensors = (tensors_of((of / file).read_bytes()) for of in (copy, original))
        assert len(set(tensors)) == 1
    card = (copy / "README.md").read_text()
    assert (folder / "artifacts" / evaluation_of(chain) / "report.md").read_text().strip() in card

    train = fetch(store, lora.read(store, LORA).dataset, folder / "work") / "imagefolder" / "train"
    image = next(iter(sorted(train.glob("*.png"))))
    withdrawn = {"RETIRE_IMAGE": str(image), "RETIRE_REASON": "asked for by its owner", "PROMOTE_MODEL": ""}
    end = finish("retire", folder, VARIABLES | withdrawn)
    assert end.code == ExitCode.DONE, end.last("failed")
    for model in ("released", "style"):
        entry = History.read(store, model).entries[-1]
        assert (entry.action, entry.lora, list(entry.retired.values())) == ("retire", None, [LORA])
    pixels = sha256_of(image)
    assert finish("data-prep", folder, VARIABLES).code == ExitCode.DONE
    [newer] = [path for path in list_artifacts(store, "datasets") if path != lora.read(store, LORA).dataset]
    assert pixels not in {file.sha256 for file in read_manifest(store, newer).files}
    reasons = [entry.reason for entry in provenance(store, newer, read_manifest(store, newer))]
    assert "excluded" in reasons
