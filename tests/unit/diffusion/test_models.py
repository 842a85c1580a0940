"""Models by name."""

import pytest

from service.diffusion.models import locate_model
from service.exits import MissingInput
from service.settings.train import TrainSettings


def test_a_folder_that_does_not_exist_is_missing_input() -> None:
    with pytest.raises(MissingInput, match="MODEL_VAE"):
        locate_model(TrainSettings(model_vae="./nowhere"), "model_vae")


def test_a_hub_model_is_pinned_to_its_revision() -> None:
    files = locate_model(TrainSettings(model_base="owner/name", model_base_revision="abc"), "model_base")
    assert (files.name, files.options) == ("owner/name", {"revision": "abc"})
