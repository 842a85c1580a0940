"""Models by name."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from service.artifacts.kinds.lora import Lora
from service.diffusion.models import locate_model
from service.diffusion.trained_on import check_trained_on
from service.exits import BadConfiguration, MissingInput
from service.settings.infer import InferSettings
from service.settings.train import TrainSettings


def test_a_folder_that_does_not_exist_is_missing_input() -> None:
    with pytest.raises(MissingInput, match="MODEL_VAE"):
        locate_model(TrainSettings(model_vae="./nowhere"), "model_vae")


def test_a_hub_model_is_pinned_to_its_revision() -> None:
    files = locate_model(TrainSettings(model_base="owner/name", model_base_revision="abc"), "model_base")
    assert (files.name, files.options) == ("owner/name", {"revision": "abc"})


def lora_of(**recipe: Any) -> Lora:
    return Lora(path="runs/of-before/lora", version="1" * 16, recipe=recipe, parents=[])


def test_a_lora_of_another_edition_of_the_miniature_is_refused_with_both() -> None:
    settings = InferSettings(model_base="miniature")
    check_trained_on(lora_of(model_base="miniature", model_base_revision=settings.model_base_revision), settings)
    with pytest.raises(BadConfiguration, match=r"runs/of-before/lora was trained on another edition.*451f there"):
        check_trained_on(lora_of(model_base="miniature", model_base_revision="451f"), settings)


def test_a_lora_of_another_base_model_is_told_and_one_from_elsewhere_is_not() -> None:
    settings = InferSettings(model_base="owner/mine", model_base_revision="abc")
    for recipe in (
        {"model_base": "owner/theirs", "model_base_revision": "abc"},
        {**settings.public(), "model_base_revision": "abd"},
    ):
        with capture_logs() as logs:
            check_trained_on(lora_of(**recipe), settings)
        assert [entry["log_level"] for entry in logs] == ["warning"]
    with capture_logs() as logs:
        check_trained_on(lora_of(), settings)
    assert logs == []
