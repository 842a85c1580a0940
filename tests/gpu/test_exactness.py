"""With TRAIN_DETERMINISTIC, a run that is stopped and goes on has the bits of one that was not, on the device."""

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from service.exits import ExitCode
from service.settings.demo import DEMO_VARIABLES
from service.training.determinism import deterministic_kernels
from tests.gpu.device import DEVICE, ON_GPU
from tests.integration.chain import SMALL, finish, finish_killed, lora_bytes
from tests.integration.trained_runs import with_dataset
from tests.unit.training.building import KeptSnapshots, checkpoints_in, settings_for, trained_state, trainer_for

VARIANTS: dict[str, dict[str, object]] = {
    "attention": {},
    "everything": {"target_modules": ["attention", "feed_forward", "convolutions"]},
    "average and best": {"ema_decay": 0.9, "publish": "best"},
    "checkpointing": {"gradient_checkpointing": True, "gradient_accumulation_steps": 2},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_resumed_training_has_the_bits_of_an_undisturbed_one(
    variant: str, accelerator: Accelerator, tmp_path: Path
) -> None:
    settings = settings_for(**VARIANTS[variant])
    with deterministic_kernels(True):
        whole = trainer_for(settings, accelerator=accelerator)
        whole.fit([checkpoints_in(KeptSnapshots(tmp_path), settings)])
        resumed = trainer_for(settings, accelerator=Accelerator(cpu=not ON_GPU))
        resumed.resume(tmp_path / "3")
        resumed.fit([])
    assert resumed.install_result() == whole.install_result()
    expected = trained_state(whole)
    assert {tensor.device.type for tensor in expected.values()} == {DEVICE.type}
    assert all(torch.equal(tensor, expected[name]) for name, tensor in trained_state(resumed).items())


def test_a_job_that_was_killed_publishes_the_bytes_of_one_that_was_not(tmp_path: Path) -> None:
    place = {} if ON_GPU else {"CUDA_VISIBLE_DEVICES": ""}
    variables = DEMO_VARIABLES | SMALL | {"TRAIN_DETERMINISTIC": "true", "TRAIN_SAMPLES": "0"} | place
    prepared = tmp_path / "prepared"
    assert finish("data-prep", prepared, variables).code == ExitCode.DONE
    undisturbed, killed = (with_dataset(tmp_path / name, prepared) for name in ("undisturbed", "killed"))
    assert finish("train", undisturbed, variables).code == ExitCode.DONE
    assert finish_killed("train", killed, variables, lambda _, line: '"checkpoint committed"' in line)
    end = finish("train", killed, variables)
    assert end.code == ExitCode.DONE, end.events
    assert end.last("resumed")["step"] >= 4
    assert lora_bytes(killed) == lora_bytes(undisturbed)
