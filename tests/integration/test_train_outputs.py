"""What a training leaves behind, and that several machines make the same of it as one."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from PIL import Image
from safetensors import safe_open
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from service.diffusion.lora import WEIGHTS_NAME
from service.diffusion.sd15.lora_files import ELSEWHERE
from service.exits import ExitCode
from tests.integration.chain import TRAINING, finish, start
from tests.integration.trained_runs import distance, with_dataset
from tests.servers import free_port

VARIABLES = TRAINING | {
    "TRAIN_MAX_STEPS": "12",
    "TRAIN_CHECKPOINT_EVERY": "4",
    "TRAIN_VALIDATE_EVERY": "4",
    "TRAIN_LOG_EVERY": "1",
    "TRAIN_BATCH_SIZE": "4",
    "TRAIN_SAMPLES": "2",
    "TRAIN_SAMPLE_STEPS": "2",
    "TRAIN_SAMPLE_EVERY": "8",
    "TRAIN_TRACKER": "tensorboard",
    "TRAIN_TEXT_ENCODER": "true",
    "TRAIN_DATE": "2026-11-30",
    "TRAIN_PEER_TIMEOUT": "60",
    "OMP_NUM_THREADS": "1",
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    assert finish("data-prep", folder, VARIABLES).code == ExitCode.DONE
    return folder


@pytest.fixture(scope="module")
def trained(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's folder, after a training with everything switched on."""
    folder = with_dataset(tmp_path_factory.mktemp("trained"), prepared)
    end = finish("train", folder, VARIABLES)
    assert end.code == ExitCode.DONE, end.events
    return folder


def run_of(folder: Path) -> Path:
    return folder / "artifacts" / "runs" / "demo"


def test_the_card_tells_programs_and_people_what_the_lora_is(trained: Path) -> None:
    lora = run_of(trained) / "lora"
    _, head, text = (lora / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(head)["base_model"] == "miniature"
    assert yaml.safe_load(head)["library_name"] == "diffusers"
    assert yaml.safe_load(head)["instance_prompt"] == "8-bit illustration"
    assert yaml.safe_load(head)["license"] == "apache-2.0"
    assert f"`{ELSEWHERE}/demo.safetensors`" in text.split("![")[0]
    assert "of U-Net and text encoder" in text
    assert "| `learning_rate` | `0.003` |" in text
    for picture in ("samples.png", "curves.png"):
        assert f"]({picture})" in text
        with Image.open(lora / picture) as opened:
            opened.load()
            assert len(opened.getcolors(1 << 24) or []) > 16  # it is no empty page


def test_both_files_hold_the_text_encoder_too_and_tell_how_they_were_trained(trained: Path) -> None:
    for name, prefix in (
        (WEIGHTS_NAME, "text_encoder.text_model."),
        (f"{ELSEWHERE}/demo.safetensors", "lora_te_text_model_"),
    ):
        with safe_open(run_of(trained) / "lora" / name, "pt") as file:
            assert any(key.startswith(prefix) for key in file.keys())  # noqa: SIM118 - it is no dictionary
            facts = file.metadata()
        assert facts["ss_steps"] == "12"
        assert facts["sdlora.profile"] == "miniature"
        assert facts["modelspec.title"] == facts["ss_output_name"] == "demo"
        assert facts["modelspec.trigger_phrase"] == "8-bit illustration"
        assert facts["modelspec.license"] == "apache-2.0"
        assert facts["modelspec.date"] == "2026-11-30"
        [tags] = json.loads(facts["ss_tag_frequency"]).values()
        assert tags["8-bit illustration"] == int(facts["ss_num_train_images"])


def test_made_again_by_another_attempt_of_the_run_all_of_the_lora_has_the_same_bytes(
    trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained / "artifacts", tmp_path / "artifacts", symlinks=True)
    shutil.rmtree(run_of(tmp_path) / "lora")
    end = finish("train", tmp_path, VARIABLES)
    assert end.code == ExitCode.DONE, end.events
    manifests = [json.loads((run_of(folder) / "lora" / "MANIFEST.json").read_text()) for folder in (trained, tmp_path)]
    assert len(list((run_of(tmp_path) / "attempts").iterdir())) == 2
    assert manifests[0]["version"] == manifests[1]["version"]


def test_every_step_is_a_line_of_the_metrics_and_every_fourth_has_the_loss_of_each_timestep(trained: Path) -> None:
    lines = [json.loads(line) for line in (run_of(trained) / "lora" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 13))
    held_out = [line for line in lines if "held_out_loss" in line]
    assert [line["step"] for line in held_out] == [0, 4, 8, 12]
    assert held_out[0]["held_out_ratio"] == 1
    assert all(f"held_out_loss_{timestep}" in held_out[-1] for timestep in (100, 300, 500, 700))


def test_pictures_are_drawn_on_the_way_too(trained: Path) -> None:
    found = sorted((run_of(trained) / "samples").rglob("samples.png"))
    assert [path.parent.name for path in found] == ["step-00000008"]


def test_tensorboard_shows_the_curves(trained: Path) -> None:
    # The settings are in a folder below the one of the curves.
    events = min((run_of(trained) / "tensorboard").rglob("events.out.tfevents*"), key=lambda path: len(path.parts))
    accumulator = EventAccumulator(str(events.parent))
    accumulator.Reload()
    assert [event.step for event in accumulator.Scalars("loss")] == list(range(1, 13))
    assert [event.step for event in accumulator.Scalars("held_out_loss")] == [0, 4, 8, 12]


def test_two_machines_that_meet_at_the_first_one_train_the_lora_of_one(
    prepared: Path, trained: Path, tmp_path: Path
) -> None:
    folder = with_dataset(tmp_path, prepared)
    meeting = {"TRAIN_NODES": "2", "TRAIN_PROCESSES": "1", "TRAIN_RENDEZVOUS": f"127.0.0.1:{free_port()}"}
    machines = [
        start(
            "train", folder, VARIABLES | meeting | {"TRAIN_NODE_RANK": str(rank), "WORK_DIR": str(tmp_path / str(rank))}
        )
        for rank in range(2)
    ]
    ends = [machine.wait() for machine in machines]
    assert [end.code for end in ends] == [ExitCode.DONE] * 2, ends
    assert distance(folder, trained) <= 1e-4
