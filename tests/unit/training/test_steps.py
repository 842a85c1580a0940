"""A step: images of one bucket each, and a loss that is finite."""

from dataclasses import replace

import pytest
import torch

from service.exits import Diverged
from tests.unit.training.building import (
    encoded,
    settings_for,
    trained_state,
    trainer_for,
)


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


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_images() -> None:
    data = encoded()
    data.posteriors.rows["3"]["mean"][:] = float("nan")
    trainer = trainer_for(settings_for(), samples=data)
    with pytest.raises(Diverged, match=r"step \d, with the images 3\.png; try"):
        trainer.fit([])
