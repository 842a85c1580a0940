"""The loop: the right samples, the right mathematics, checkpoints that are found and believed only when they fit."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler, UNet2DConditionModel
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from service.artifacts.runs import Run
from service.diffusion.held_out import TIMESTEPS, HeldOut, held_out_losses
from service.diffusion.lora import lora_parameters, lora_state
from service.diffusion.sd15.denoiser import UNetDenoiser
from service.diffusion.sd15.lora import add_lora
from service.diffusion.sd15.noise import DDPMNoise
from service.diffusion.sd15.prompts import STATES
from service.exits import BadConfiguration, Diverged, Stopped
from service.settings.identity import check_identity, identity
from service.settings.train import TrainSettings
from service.storage.opening import open_store
from service.training import measuring
from service.training.checkpoints import commit, newest_checkpoint, newest_first
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


@pytest.mark.parametrize(
    "name", ["cosine", "cosine_with_restarts", "linear", "polynomial", "constant", "constant_with_warmup"]
)
def test_every_schedule_warms_up_and_moves_in_steps_of_the_optimizer(name: str) -> None:
    settings = settings_for(lr_scheduler=name, lr_warmup_steps=2 if name != "constant" else 0, max_steps=6)
    trainer = trainer_for(settings)
    rates = []
    for step in range(6):
        rates.append(trainer.schedule.get_last_lr()[0])
        trainer.take_step(step)
    if name == "constant":
        assert rates == [1e-2] * 6
    else:
        assert rates[:3] == pytest.approx([0, 5e-3, 1e-2])
        assert (rates[-1] == 1e-2) == (name == "constant_with_warmup")


def test_an_optimizer_that_is_not_installed_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(BadConfiguration, match=r"pip install 'sdlora\[adamw8bit\]'"):
        trainer_for(settings_for(optimizer="adamw8bit"))


def test_images_of_several_buckets_train_together() -> None:
    wide = {"mean": torch.randn(4, 8, 16), "deviation": torch.zeros(4, 8, 16)}
    data = encoded()
    mixed = replace(
        data,
        posteriors=replace(data.posteriors, rows={**data.posteriors.rows, "4": wide, "4 mirrored": wide}),
        buckets=[[0, 1, 2, 3], [4]],
        shapes=[*data.shapes[:4], (4, 8, 16)],
    )
    trainer = trainer_for(settings_for(), samples=mixed)
    trainer.fit([])
    assert all(bool(torch.isfinite(tensor).all()) for tensor in trained_state(trainer).values())


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


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_images() -> None:
    data = encoded()
    data.posteriors.rows["3"]["mean"][:] = float("nan")
    trainer = trainer_for(settings_for(), samples=data)
    with pytest.raises(Diverged, match=r"step \d, with the images 3\.png; try"):
        trainer.fit([])


def test_the_held_out_loss_of_a_model_is_the_same_every_time_it_is_measured() -> None:
    held_out = HeldOut(torch.randn(3, *SHAPE), {STATES: torch.randn(3, 5, 12)})
    denoiser, scheduler, device = UNetDenoiser(small_unet()), DDPMNoise(DDPMScheduler()), torch.device("cpu")
    first = held_out_losses(denoiser, scheduler, held_out, device)
    torch.manual_seed(99)
    assert first.shape == (3, len(TIMESTEPS))
    assert torch.equal(first, held_out_losses(denoiser, scheduler, held_out, device))


@given(st.lists(st.integers(0, 99_999_999), max_size=20))
def test_checkpoints_are_tried_from_the_newest_to_the_oldest(steps: list[int]) -> None:
    paths = [f"runs/a/checkpoints/step-{step:08d}/{number:012x}" for number, step in enumerate(steps)]
    ordered = newest_first([*paths, "runs/a/checkpoints/other"])
    assert sorted(ordered) == sorted(paths)
    found = [int(path.split("step-")[1][:8]) for path in ordered]
    assert found == sorted(found, reverse=True)


def test_a_run_without_checkpoints_starts_at_the_beginning(tmp_path: Path) -> None:
    assert newest_checkpoint(Run(open_store(str(tmp_path)), "new"), {}, tmp_path) is None


def test_a_checkpoint_of_other_settings_is_refused_with_what_differs(tmp_path: Path) -> None:
    run = Run(open_store(str(tmp_path / "artifacts")), "r")
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "file").write_bytes(b"x")
    commit(run, tmp_path / "checkpoint", 5, identity(settings_for(), dataset="datasets/a/1"))
    wanted = identity(settings_for(learning_rate=1e-3), dataset="datasets/a/1")
    with pytest.raises(BadConfiguration, match=r"TRAIN_LEARNING_RATE \(0.01 there, 0.001 now\)"):
        newest_checkpoint(run, wanted, tmp_path)


def test_where_things_are_kept_and_how_often_does_not_make_another_lora() -> None:
    here = settings_for(run_id="a", artifacts_uri="s3://b/c", checkpoint_every=7)
    check_identity(
        TrainSettings, identity(here, dataset="datasets/a/1"), identity(settings_for(), dataset="datasets/a/1"), "here"
    )


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
