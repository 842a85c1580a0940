"""What moves the LoRA: schedules in steps of the optimizer, optimizers that may be missing."""

import sys

import pytest

from service.exits import BadConfiguration
from tests.unit.training.building import (
    settings_for,
    trainer_for,
)


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
