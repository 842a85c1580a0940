"""What is wrong with a training's input is said in one line, by name, and costs nothing that was saved."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from service.artifacts.publishing import publish_version
from service.exits import ExitCode
from service.storage.opening import open_store
from tests.integration.chain import TRAINING, End, finish

VARIABLES = TRAINING | {
    "TRAIN_MAX_STEPS": "8",
    "TRAIN_CHECKPOINT_EVERY": "4",
    "TRAIN_BATCH_SIZE": "2",
    "TRAIN_SAMPLES": "0",
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    assert finish("data-prep", folder, VARIABLES).code == ExitCode.DONE
    return folder


def refused(end: End, code: ExitCode) -> str:
    """The one line with which the job ended."""
    assert end.code == code, end.events
    assert "exception" not in end.last("failed")
    error = str(end.last("failed")["error"])
    assert "\n" not in error
    return error


def damaged(prepared: Path, folder: Path, damage: Callable[[Path], None]) -> dict[str, str]:
    """A data set that was published with a flaw, which data-prep would not have let pass."""
    source = next((prepared / "artifacts" / "datasets").rglob("imagefolder"))
    for file in source.rglob("*"):
        if file.is_file():
            copy = folder / "copy" / "imagefolder" / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    damage(folder / "copy" / "imagefolder" / "train")
    store = open_store(str(folder / "artifacts"))
    return {"TRAIN_DATASET": publish_version(store, folder / "copy", kind="dataset", prefix="datasets/flawed").path}


def test_a_caption_that_is_missing_names_its_image(prepared: Path, tmp_path: Path) -> None:
    def damage(train: Path) -> None:
        lines = (train / "metadata.csv").read_text().splitlines()
        lines[1] = lines[1].split(",")[0] + ","
        (train / "metadata.csv").write_text("\n".join(lines) + "\n")

    end = finish("train", tmp_path, VARIABLES | damaged(prepared, tmp_path, damage))
    assert "has no caption" in refused(end, ExitCode.BAD_DATA)


def test_an_image_that_cannot_be_read_is_named(prepared: Path, tmp_path: Path) -> None:
    def damage(train: Path) -> None:
        sorted(train.glob("*.png"))[0].write_bytes(b"\x89PNG\r\n\x1a\n and no more")

    end = finish("train", tmp_path, VARIABLES | damaged(prepared, tmp_path, damage))
    error = refused(end, ExitCode.BAD_DATA)
    assert ".png of the data set cannot be read" in error


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("TRAIN_RESOLUTION", "100", "multiple of 8"),
        ("TRAIN_RANK", "0", "TRAIN_RANK='0'"),
        ("TRAIN_TARGET_MODULES", "to_q,to_z", "to_q"),
        ("TRAIN_GRADIENT_ACCUMULATION_STEPS", "3", "TRAIN_BATCH_SIZE=2"),
        ("TRAIN_TRACKER", "wandb", "sdlora[wandb]"),
        ("TRAIN_NODES", "2", "TRAIN_RENDEZVOUS"),
    ],
)
def test_a_setting_that_cannot_work_is_named(
    variable: str, value: str, told: str, prepared: Path, tmp_path: Path
) -> None:
    dataset = damaged(prepared, tmp_path, lambda _: None)
    error = refused(finish("train", tmp_path, VARIABLES | dataset | {variable: value}), ExitCode.BAD_CONFIGURATION)
    assert variable in error or "TRAIN_" in error
    assert told in error


def test_a_loss_that_is_not_finite_names_images_and_the_last_good_checkpoint_stays(
    prepared: Path, tmp_path: Path
) -> None:
    dataset = damaged(prepared, tmp_path, lambda _: None)
    # The first step moves nothing: the rate rises to one that no model survives.
    wild = {"TRAIN_LEARNING_RATE": "1e30", "TRAIN_LR_WARMUP_STEPS": "1", "TRAIN_CHECKPOINT_EVERY": "1"}
    end = finish("train", tmp_path, VARIABLES | dataset | wild)
    error = refused(end, ExitCode.DIVERGED)
    assert "with the images" in error
    assert ".png" in error
    # The second step's loss was finite, what it made of the LoRA is not usable: the third one finds out.
    assert " at step 3," in error
    run = tmp_path / "artifacts" / "runs" / "demo"
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-00000001", "step-00000002"]
    assert not (run / "lora").exists()
    for manifest in (run / "checkpoints").rglob("MANIFEST.json"):
        assert json.loads(manifest.read_text())["kind"] == "checkpoint"
        assert all(bool(t.isfinite().all()) for t in load_file(manifest.parent / "lora.safetensors").values())
