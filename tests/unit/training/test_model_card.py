"""The page beside a LoRA, as its reader sees it, and the head that model hubs read."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import service
from service.diffusion.family import LoraFiles
from service.diffusion.lora import WEIGHTS_NAME
from service.training.model_card import write_card
from tests.unit.training.describing import trained

FILES = LoraFiles(
    "StableDiffusionPipeline", WEIGHTS_NAME, "diffusers 0.32 or newer", "elsewhere/ours-1.safetensors", "", "the U-Net",
    "stable-diffusion",
)  # fmt: skip
DORA = LoraFiles(
    "StableDiffusionPipeline", WEIGHTS_NAME, "diffusers 0.32 or newer", None, "they apply a DoRA otherwise", "the U-Net",
    "stable-diffusion",
)  # fmt: skip


def card(file: Path, samples: list[str] | None = None, files: LoraFiles = FILES, **options: Any) -> str:
    write_card(file, trained(**options), files, modules=128, ratio=0.9, samples=samples or [])
    return file.read_text()


def head_of(text: str) -> dict[str, Any]:
    return dict(yaml.safe_load(text.split("---\n")[1]))


def test_each_prompt_of_the_pictures_has_a_line_of_its_own(tmp_path: Path) -> None:
    text = card(tmp_path / "README.md", ["8-bit, a cat", "8-bit, a dog"])
    assert "The prompts:\n\n- 8-bit, a cat\n- 8-bit, a dog\n\n## What it is\n" in text


def test_without_pictures_nothing_is_said_of_them(tmp_path: Path) -> None:
    text = card(tmp_path / "README.md")
    assert "samples.png" not in text
    assert "The prompts" not in text


@pytest.mark.parametrize("base", ["miniature", "owner/model"])
def test_the_example_loads_the_base_model_from_where_it_is(base: str, tmp_path: Path) -> None:
    text = card(tmp_path / "README.md", model_base=base)
    [named] = re.findall(r'from_pretrained\("(.+?)"', text)
    if base == "miniature":
        assert (Path(service.__file__).parents[1] / named / "unet").is_dir()
    else:
        assert named == base


@pytest.mark.parametrize("caption", ['8-bit, a "cat"', "8-bit, a \\o/ cheer \\", "8-bit, it's {{ a cat }} – 猫"])
def test_the_example_draws_a_caption_of_the_training_word_for_word(caption: str, tmp_path: Path) -> None:
    [code] = re.findall(r"```python\n(.+?)```", card(tmp_path / "README.md", captions=[caption]), re.DOTALL)
    [prompt] = [
        call.args[0].value
        for call in ast.walk(ast.parse(code))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and isinstance(call.args[0], ast.Constant)
    ]
    assert prompt == caption


def test_the_first_lines_say_which_file_is_for_whom(tmp_path: Path) -> None:
    text = card(tmp_path / "README.md", ["a cat"])
    _, first = text.split("# LoRA ours-1\n", 1)
    first = "\n".join(first.splitlines()[:4])
    assert first.index("ComfyUI") < first.index("`elsewhere/ours-1.safetensors`") < first.index(f"`{WEIGHTS_NAME}`")
    assert "With diffusers 0.32 or newer:" in text


def test_of_a_dora_they_say_that_it_is_for_diffusers_alone_and_why(tmp_path: Path) -> None:
    text = card(tmp_path / "README.md", files=DORA)
    first = text.split("# LoRA ours-1\n", 1)[1].splitlines()[1]
    assert first.startswith("**For diffusers alone:**")
    assert first.endswith("they apply a DoRA otherwise.")
    assert "where they look for LoRAs" not in text


def test_model_hubs_are_told_base_model_licence_and_prompt(tmp_path: Path) -> None:
    head = head_of(card(tmp_path / "README.md", style='in the style of "8-bit: art"'))
    assert head["base_model"] == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert head["license"] == "creativeml-openrail-m"
    assert head["instance_prompt"] == 'in the style of "8-bit: art"'
    chosen = head_of(card(tmp_path / "README.md", licence="CC-BY-4.0", model_base="miniature", style=""))
    assert chosen["license"] == "cc-by-4.0"
    assert "instance_prompt" not in chosen


@pytest.mark.parametrize("base", ["/home/lovelace/models/sd15", "./sd15", "s3://lovelace/models/sd15"])
def test_no_card_tells_where_the_base_model_lies(base: str, tmp_path: Path) -> None:
    text = card(tmp_path / "README.md", model_base=base)
    assert "base_model" not in head_of(text)
    assert head_of(text)["license"] == "unknown"
    assert "for `sd15`" in text
    assert 'from_pretrained("folder of sd15")' in text
    assert "lovelace" not in text
    assert base not in text
