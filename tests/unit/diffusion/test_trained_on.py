"""With which champion a LoRA can be compared."""

import pytest

from service.artifacts.kinds.lora import Lora
from service.diffusion.trained_on import check_comparable
from service.exits import BadConfiguration, BadData
from service.settings.evaluate import EvaluateSettings

SETTINGS = EvaluateSettings(model_base="miniature")


def champion(version: str = "1", **recipe: str | None) -> Lora:
    return Lora(path="runs/old/lora", version=version, recipe=recipe, parents=[])


def test_a_champion_of_the_same_base_model_and_one_that_does_not_tell_are_compared_with() -> None:
    own = {"model_base": SETTINGS.model_base, "model_base_revision": SETTINGS.model_base_revision}
    check_comparable(champion(**own), "1", SETTINGS)
    check_comparable(champion(), "1", SETTINGS)


@pytest.mark.parametrize(("base", "revision"), [("owner/other", "main"), ("miniature", "an-older-edition")])
def test_a_champion_of_another_base_model_or_edition_is_told_in_one_line(base: str, revision: str) -> None:
    with pytest.raises(
        BadConfiguration, match=f"old/lora was trained on {base}@{revision}, and MODEL_BASE is miniature@"
    ) as told:
        check_comparable(champion(model_base=base, model_base_revision=revision), "1", SETTINGS)
    assert "\n" not in str(told.value)


def test_another_lora_at_the_champion_s_path_is_never_taken_for_it() -> None:
    with pytest.raises(BadData, match="holds version 2 now, and the registry means 1"):
        check_comparable(champion("2"), "1", SETTINGS)
