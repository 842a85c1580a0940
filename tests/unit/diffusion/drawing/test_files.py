import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.diffusion.drawing.files import Origin, parameters, read_picture, read_pictures, write_grid, write_pictures
from service.diffusion.drawing.requests import Drawing, Request
from service.exits import BadData

REQUESTS = [Request("8-bit illustration, a lion", 7), Request("りんご, red: 100%\nSteps: 1", 8)]
FACT = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')


def origin(negative: str = "", model: str = "miniature") -> Origin:
    drawing = Drawing(steps=20, guidance=7.5, resolution=None, batch_size=4, negative_prompt=negative)
    return Origin(drawing, model, "DDIM", {"lora": "runs/demo/lora", "steps": 20})


def as_a1111_reads(text: str) -> tuple[str, str, dict[str, str]]:
    """Prompt, negative prompt and facts, by the rules of A1111's parse_generation_parameters."""
    *lines, last = text.strip().split("\n")
    facts = dict(FACT.findall(last))
    if len(facts) < 3:
        lines, facts = [*lines, last], {}
    prompt: list[str] = []
    negative: list[str] = []
    wanted = prompt
    for line in lines:
        if line.strip().startswith("Negative prompt:"):
            wanted, line = negative, line.strip().removeprefix("Negative prompt:")
        wanted.append(line.strip())
    unquoted = {name: json.loads(value) if value.startswith('"') else value for name, value in facts.items()}
    return "\n".join(prompt), "\n".join(negative), unquoted


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8))


def test_a1111_finds_prompt_negative_prompt_and_facts_each_in_its_place(tmp_path: Path) -> None:
    write_pictures(tmp_path / "lora", [noise(0), noise(1)], REQUESTS, origin("blurred, ugly"))
    text = Image.open(tmp_path / "lora" / "00000.png").text["parameters"]
    assert as_a1111_reads(text) == (
        "8-bit illustration, a lion",
        "blurred, ugly",
        {"Steps": "20", "Sampler": "DDIM", "CFG scale": "7.5", "Seed": "7", "Size": "16x12", "Model": "miniature"},
    )


def test_without_a_negative_prompt_there_is_no_line_for_it() -> None:
    text = parameters(REQUESTS[0], (64, 64), origin())
    assert "Negative" not in text
    assert as_a1111_reads(text)[0] == "8-bit illustration, a lion"


@pytest.mark.parametrize("model", ["s3://bucket/models/sd15", "a, b", "/models/sd:15", 'with "quotes", too'])
def test_a_model_whose_name_has_commas_or_colons_stays_one_fact(model: str) -> None:
    assert as_a1111_reads(parameters(REQUESTS[0], (64, 64), origin(model=model)))[2]["Model"] == model


def test_a_prompt_of_several_lines_and_scripts_stays_the_prompt(tmp_path: Path) -> None:
    write_pictures(tmp_path / "lora", [noise(0), noise(1)], REQUESTS, origin())
    text = Image.open(tmp_path / "lora" / "00001.png").text["parameters"]
    prompt, negative, facts = as_a1111_reads(text)
    assert (prompt, negative, facts["Seed"]) == ("りんご, red: 100% Steps: 1", "", "8")


def test_the_whole_recipe_stands_beside_it_as_json(tmp_path: Path) -> None:
    write_pictures(tmp_path / "lora", [noise(0), noise(1)], REQUESTS, origin())
    ours = json.loads(Image.open(tmp_path / "lora" / "00001.png").text["sdlora"])
    assert ours == {"lora": "runs/demo/lora", "steps": 20, "prompt": REQUESTS[1].prompt, "seed": 8}


def test_the_grid_tells_how_it_was_drawn_too(tmp_path: Path) -> None:
    write_grid(tmp_path / "grid.png", noise(2), (64, 64), REQUESTS, origin())
    text = Image.open(tmp_path / "grid.png").text
    assert as_a1111_reads(text["parameters"])[2]["Size"] == "64x64"
    assert json.loads(text["sdlora"])["prompts"] == [request.prompt for request in REQUESTS]


def test_pictures_read_back_pixel_for_pixel_and_in_their_order(tmp_path: Path) -> None:
    write_pictures(tmp_path / "base", [noise(number) for number in range(12)], REQUESTS * 6, origin())
    found = read_pictures(tmp_path / "base")
    assert [picture.tobytes() for picture in found] == [noise(number).tobytes() for number in range(12)]


def test_what_is_no_picture_is_bad_data_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "grid.png").write_bytes(b"no")
    with pytest.raises(BadData, match=r"grid\.png"):
        read_picture(tmp_path / "grid.png")
