"""Training on the device learns what it learns in float32 on the CPU, in every precision and variant."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from structlog.testing import capture_logs

from service.training.progress import ratios
from service.training.trainer import Trainer
from tests.gpu.device import DEVICE, ON_GPU
from tests.learning import trained
from tests.unit.training.building import distance

CPU = torch.device("cpu")
# Accelerate refuses fp16 on a CPU; inductor needs a compiler, which a machine that only tests may lack.
PRECISIONS = ["no", "bf16", *(["fp16"] if ON_GPU else [])]
VARIANTS: dict[str, dict[str, object]] = {
    "gradient checkpointing": {"gradient_checkpointing": True},
    "DoRA": {"dora": True},
    "text encoder": {"text_encoder": True},
    "data set left on the host": {"cache_on_device": "never"},
    **({"inductor": {"compile": True}, "8-bit AdamW": {"optimizer": "adamw8bit"}} if ON_GPU else {}),
}
Training = Callable[..., Trainer]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("learning")


@pytest.fixture(scope="module")
def on_cpu(folder: Path) -> Callable[[str], list[float]]:
    """Held-out losses of a variant in float32 on the CPU, each at its timestep: before, and after the training."""

    @cache
    def losses(variant: str) -> list[list[float]]:
        options = VARIANTS.get(variant, {})
        return held_out(trained(folder, "no", CPU, **{**options, "compile": False, "optimizer": on_any(options)}))

    return losses


def on_any(options: dict[str, object]) -> object:
    """The optimizer that is nearest to it on a CPU."""
    return "adamw" if options.get("optimizer") == "adamw8bit" else options.get("optimizer", "adamw")


def held_out(trainer: Trainer) -> list[list[float]]:
    return [list(measurement.losses) for measurement in trainer.progress.measurements]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_held_out_loss_is_that_of_the_cpu_and_lora_a_moves(
    precision: str, on_cpu: Callable[[str], list[float]], folder: Path
) -> None:
    start: dict[str, torch.Tensor] = {}

    def keep(trainer: Trainer) -> None:
        start.update({name: tensor.clone() for name, tensor in trainer.lora().items()})

    trainer = trained(folder, precision, DEVICE, keep)
    assert {parameter.device.type for parameter in trainer.unwrapped.parameters()} == {DEVICE.type}
    for expected, found in zip(on_cpu("plain"), held_out(trainer), strict=True):
        assert found == pytest.approx(expected, rel=0.02)
    assert ratios(trainer.progress.measurements)[-1] < 1  # it learned something
    moved = [(tensor != start[name]).float().mean() for name, tensor in trainer.lora().items() if "lora_A" in name]
    assert torch.stack(moved).mean() > 0.99


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_learns_as_on_the_cpu(variant: str, on_cpu: Callable[[str], list[float]], folder: Path) -> None:
    trainer = trained(folder, "bf16", DEVICE, **VARIANTS[variant])
    for expected, found in zip(on_cpu(variant), held_out(trainer), strict=True):
        assert found == pytest.approx(expected, rel=0.02)
    assert ratios(trainer.progress.measurements)[-1] < 1


def test_prodigy_takes_the_steps_of_the_cpu(folder: Path) -> None:
    # It begins with very small ones: by them the loss hardly moves yet, so the weights are compared.
    found, expected = (
        {name: tensor.cpu() for name, tensor in trainer.lora().items() if "lora_B" in name}
        for trainer in (
            trained(folder, "no", device, optimizer="prodigy", learning_rate=1.0) for device in (DEVICE, CPU)
        )
    )
    assert all(tensor.norm() > 0 for tensor in expected.values())
    assert distance(found, expected) < 0.1


def test_steps_that_the_scaler_skips_are_told(folder: Path) -> None:
    def overflow(trainer: Trainer) -> None:
        trainer.parameters[0].register_hook(
            lambda gradient: gradient + (float("inf") if trainer.progress.step in (1, 2) else 0)
        )

    with capture_logs() as logs:
        trained(folder, "fp16" if ON_GPU else "no", DEVICE, overflow, with_scaler=True)
    told = [step for entry in logs if entry["event"].startswith("steps skipped") for step in entry["steps"]]
    assert {2, 3} <= set(told)
