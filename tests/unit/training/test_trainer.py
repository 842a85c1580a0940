"""The loop: the right mathematics, the same bits after a resume, an end in time."""

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler, UNet2DConditionModel
from structlog.testing import capture_logs
from torch.nn import functional as F

from service.diffusion.lora import lora_parameters, lora_state
from service.diffusion.sd15.denoiser import UNetDenoiser
from service.diffusion.sd15.lora import add_lora
from service.exits import BadConfiguration, ExitCode, OutOfDeviceMemory, Stopped
from service.training import measuring
from service.training.randomness import draw, global_batch
from service.training.trainer import Callback, Trainer
from tests.unit.diffusion.building import small_unet
from tests.unit.training.building import (
    SHAPE,
    KeptSnapshots,
    checkpoints_in,
    distance,
    encoded,
    plain_sample,
    settings_for,
    trained_state,
    trainer_for,
)


def test_training_equals_a_plain_loop() -> None:
    settings = settings_for(caption_dropout=0.3, weight_decay=0.1)
    trainer = trainer_for(settings)
    trainer.fit([])

    unet, data, noise_schedule = small_unet(), encoded(), DDPMScheduler()
    torch.manual_seed(settings.seed)
    add_lora(unet, settings)
    parameters = lora_parameters(unet)
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.1)
    for step in range(settings.max_steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / 6)).item())
        losses = []
        for position, index in enumerate(global_batch(settings.seed, step, 4, [range(5)])):
            d = draw(settings.seed, step, position, shape=SHAPE, timesteps=1000, flip=0.5, drop_caption=0.3)
            latents, states = plain_sample(data, index, d)
            alpha = noise_schedule.alphas_cumprod[d.timestep]
            noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * d.noise
            predicted = unet(noisy[None], torch.tensor([d.timestep]), states[None]).sample[0]
            losses.append(F.mse_loss(predicted, d.noise))
        optimizer.zero_grad()
        torch.stack(losses).mean().backward()
        norm = torch.cat([p.grad.flatten() for p in parameters]).norm()
        for parameter in parameters:
            parameter.grad *= min(1.0, (settings.max_grad_norm / (norm + 1e-6)).item())
        optimizer.step()
    for name, tensor in lora_state(UNetDenoiser(unet)).items():
        torch.testing.assert_close(trained_state(trainer)[name], tensor, rtol=1e-4, atol=1e-6)


def test_a_run_that_is_resumed_ends_with_the_bits_of_one_that_was_not(tmp_path: Path) -> None:
    whole = trainer_for(settings_for())
    whole.fit([checkpoints_in(KeptSnapshots(tmp_path), whole.settings)])
    resumed = trainer_for(settings_for())
    resumed.resume(tmp_path / "3")
    assert resumed.progress.step == 3
    resumed.fit([])
    expected = trained_state(whole)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in trained_state(resumed).items())
    assert resumed.progress == whole.progress


@pytest.mark.parametrize(
    "options",
    [{"ema_decay": 0.9}, {"publish": "best", "ema_decay": 0.5}, {"optimizer": "prodigy", "learning_rate": 1.0}],
)
def test_average_best_and_optimizer_survive_a_resume_too(options: dict[str, object], tmp_path: Path) -> None:
    whole = trainer_for(settings_for(**options))
    whole.fit([checkpoints_in(KeptSnapshots(tmp_path), whole.settings)])
    resumed = trainer_for(settings_for(**options))
    resumed.resume(tmp_path / "3")
    resumed.fit([])
    assert resumed.install_result() == whole.install_result()
    expected = trained_state(whole)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in trained_state(resumed).items())


def test_the_moving_average_is_the_one_of_its_formula() -> None:
    settings = settings_for(ema_decay=0.5, max_steps=4)
    trainer = trainer_for(settings)
    expected = [parameter.detach().clone() for parameter in trainer.parameters]
    for step in range(4):
        trainer.take_step(step)
        # It warms up: the start, which is noise, is forgotten at once.
        decay = min(0.5, (1 + step) / (10 + step)) if step else 0.0
        for average, parameter in zip(expected, trainer.parameters, strict=True):
            average.mul_(decay).add_(parameter.detach(), alpha=1 - decay)
    before = trained_state(trainer)
    with trainer.averaged():
        for average, parameter in zip(expected, trainer.parameters, strict=True):
            torch.testing.assert_close(parameter.detach(), average, rtol=1e-5, atol=1e-7)
    after = trained_state(trainer)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("options", [{"gradient_accumulation_steps": 2}, {"gradient_accumulation_steps": 4}])
def test_a_step_in_parts_is_the_same_step(options: dict[str, object]) -> None:
    whole, parts = trainer_for(settings_for()), trainer_for(settings_for(**options))
    whole.fit([])
    parts.fit([])
    assert distance(trained_state(parts), trained_state(whole)) < 1e-4


def test_gradient_checkpointing_changes_nothing_but_memory() -> None:
    plain, saving = trainer_for(settings_for()), trainer_for(settings_for(gradient_checkpointing=True))
    assert any(getattr(module, "gradient_checkpointing", False) for module in saving.unwrapped.modules())
    plain.fit([])
    saving.fit([])
    assert distance(trained_state(saving), trained_state(plain)) < 1e-4


def test_compiled_training_is_the_same_training(monkeypatch: pytest.MonkeyPatch) -> None:
    # Traced forwards and backwards, and run as traced: machines that only test have no C++ compiler for the last step.
    compiled = UNet2DConditionModel.compile
    monkeypatch.setattr(UNet2DConditionModel, "compile", lambda self: compiled(self, backend="aot_eager"))
    plain, traced = trainer_for(settings_for()), trainer_for(settings_for(compile=True))
    plain.fit([])
    traced.fit([])
    assert trained_state(traced).keys() == trained_state(plain).keys()
    assert distance(trained_state(traced), trained_state(plain)) < 1e-4


def test_training_stops_when_patience_is_at_its_end_and_keeps_the_best(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Nothing is ever better than the start.
    worse = iter(range(1, 100))
    monkeypatch.setattr(measuring, "held_out_losses", lambda *_, **__: torch.full((1, 4), float(next(worse))))
    trainer = trainer_for(settings_for(max_steps=50, validate_every=2, patience=3, publish="best"))
    start = trained_state(trainer)
    kept = KeptSnapshots(tmp_path)
    checkpoints = checkpoints_in(kept, trainer.settings)
    assert trainer.fit([checkpoints]).step == 6
    assert kept.steps == [3, 6]
    assert trainer.fit([checkpoints]).step == 6  # and it does not begin again
    assert kept.steps == [3, 6]
    assert trainer.install_result().step == 0
    assert all(torch.equal(tensor, start[name]) for name, tensor in trained_state(trainer).items())


def test_the_device_is_asked_for_numbers_only_where_a_point_of_the_curves_is_due() -> None:
    trainer = trainer_for(settings_for(max_steps=12, log_every=4, checkpoint_every=12, validate_every=12))
    trainer.fit([])
    assert [point.step for point in trainer.progress.points] == [4, 8, 12]


def test_a_checkpoint_holds_the_adapter_and_not_the_frozen_model(tmp_path: Path) -> None:
    trainer = trainer_for(settings_for())
    trainer.save(tmp_path / "checkpoint")
    weights = sum(parameter.numel() for parameter in trainer.parameters)
    assert (tmp_path / "checkpoint" / "lora.safetensors").stat().st_size < 4 * weights + 30_000
    assert not list((tmp_path / "checkpoint").glob("*model*"))


def test_a_batch_that_processes_cannot_share_equally_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Accelerator, "num_processes", 3)
    with pytest.raises(BadConfiguration, match="TRAIN_BATCH_SIZE=4"):
        trainer_for(settings_for())


class StoppingAt(Callback):
    """Asks to stop at the n-th moment between two pieces of work."""

    def __init__(self, moment: int) -> None:
        self.left = moment

    def on_prediction_step(self, _: Trainer) -> None:
        self.left -= 1
        if self.left == 0:
            raise Stopped("told to stop")

    on_step_end = on_prediction_step


def test_stopped_between_any_two_pieces_of_work_and_resumed_the_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    settings = settings_for(max_steps=3, checkpoint_every=2, validate_every=2, ema_decay=0.9, batch_size=2)
    whole = trainer_for(settings, held_out=2)
    whole.fit([])
    expected, measured = trained_state(whole), whole.progress.measurements
    moments = 3 + 3 * 2  # after each step, and each held-out image of three measurements
    for moment in range(1, moments + 1):
        stopped, kept = trainer_for(settings, held_out=2), KeptSnapshots(tmp_path / str(moment))
        with pytest.raises(Stopped):
            stopped.fit([checkpoints_in(kept, settings), StoppingAt(moment)])
        saved = max(kept.steps, default=0)
        assert saved == stopped.progress.step
        resumed = trainer_for(settings, held_out=2)
        if saved:
            resumed.resume(kept.folder / str(saved))
        resumed.fit([])
        assert all(torch.equal(tensor, expected[name]) for name, tensor in trained_state(resumed).items()), moment
        assert resumed.progress.measurements == measured


def test_steps_that_the_scaler_of_fp16_skips_are_told_and_end_nothing() -> None:
    accelerator = Accelerator(cpu=True)
    accelerator.scaler = torch.amp.GradScaler("cpu")  # what Accelerate sets up for fp16, which it refuses on a CPU
    trainer = trainer_for(settings_for(max_steps=8, log_every=4), accelerator=accelerator)
    start = trained_state(trainer)
    overflows = {1, 2, 5}
    trainer.parameters[0].register_hook(
        lambda gradient: gradient + (float("inf") if trainer.progress.step + 1 in overflows else 0)
    )
    with capture_logs() as logs:
        trainer.fit([])
    assert [entry["steps"] for entry in logs if entry["event"].startswith("steps skipped")] == [[1, 2], [5]]
    moved = trained_state(trainer)
    assert all(torch.isfinite(tensor).all() for tensor in moved.values())
    assert any(not torch.equal(start[name], moved[name]) for name in start)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory: you tried 9 bytes")]
)
def test_a_step_that_needs_too_much_memory_names_the_settings_that_need_less(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise error

    trainer = trainer_for(settings_for(gradient_accumulation_steps=2))
    monkeypatch.setattr(trainer, "take_step", full)
    with pytest.raises(OutOfDeviceMemory) as told:
        trainer.fit([])
    assert told.value.exit_code == ExitCode.OUT_OF_DEVICE_MEMORY
    assert str(told.value).startswith("a step of TRAIN_BATCH_SIZE=4 at TRAIN_RESOLUTION=1024 needs more memory")
    assert "TRAIN_GRADIENT_CHECKPOINTING=true, TRAIN_GRADIENT_ACCUMULATION_STEPS=4" in str(told.value)


def test_what_is_set_already_is_not_advised(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError

    settings = settings_for(batch_size=1, gradient_checkpointing=True, cache_on_device="never")
    trainer = trainer_for(settings)
    monkeypatch.setattr(trainer, "take_step", full)
    with pytest.raises(OutOfDeviceMemory, match="than the device has: take a larger GPU, or a smaller batch"):
        trainer.fit([])
