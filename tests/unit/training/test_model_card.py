"""The page beside a LoRA, as its reader sees it."""

import re
from pathlib import Path

import pytest

import service
from service.diffusion.family import LoraFiles
from service.settings.identity import identity
from service.settings.train import TrainSettings
from service.training.model_card import write_card


def card(file: Path, samples: list[str], **settings: str) -> str:
    recipe = identity(TrainSettings.model_validate(settings), dataset="datasets/ours/1")
    write_card(
        file, name="ours-1", recipe=recipe, images=20, modules=128, steps=100, of_step=100, ratio=0.9, samples=samples,
        files=LoraFiles("StableDiffusionPipeline", "lora.safetensors", "kohya.safetensors", "the U-Net", "stable-diffusion"),
        prompt='8-bit, a "cat"',
    )  # fmt: skip
    return file.read_text()


def test_each_prompt_of_the_pictures_has_a_line_of_its_own(tmp_path: Path) -> None:
    text = card(tmp_path / "README.md", ["8-bit, a cat", "8-bit, a dog"])
    assert "The prompts:\n\n- 8-bit, a cat\n- 8-bit, a dog\n\n## What it is\n" in text


def test_without_pictures_nothing_is_said_of_them(tmp_path: Path) -> None:
    text = card(tmp_path / "README.md", [])
    assert "samples.png" not in text
    assert "prompts" not in text


@pytest.mark.parametrize("base", ["miniature", "owner/model"])
def test_the_example_loads_the_base_model_from_where_it_is(base: str, tmp_path: Path) -> None:
    text = card(tmp_path / "README.md", [], model_base=base)
    [named] = re.findall(r'from_pretrained\("(.+?)"', text)
    if base == "miniature":
        assert (Path(service.__file__).parents[1] / named / "unet").is_dir()
    else:
        assert named == base
