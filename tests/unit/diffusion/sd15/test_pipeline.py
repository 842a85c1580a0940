"""Drawing with a LoRA on: at any strength, and never with figures that are not finite."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file

from service.diffusion.drawing.requests import Drawing, Request
from service.diffusion.lora import WEIGHTS_NAME
from service.diffusion.sd15.lora_files import KOHYA_NAME, save_lora
from service.diffusion.sd15.pipeline import SD15Pipeline, open_pipeline
from service.exits import BadData
from service.settings.infer import InferSettings
from tests.unit.diffusion.sd15.variants import VARIANTS, merge_as_comfyui_does, trained

DRAWING = Drawing(steps=2, guidance=4.0, resolution=None, batch_size=2)
REQUESTS = [Request("a cat", 3), Request("8-bit illustration, a house", 4)]


def opened() -> SD15Pipeline:
    return open_pipeline(InferSettings(model_base="miniature"))


def drawn(pipeline: SD15Pipeline) -> list[Image.Image]:
    return pipeline.draw(REQUESTS, DRAWING, lambda: None)


def predicted(pipeline: StableDiffusionPipeline) -> torch.Tensor:
    torch.manual_seed(1)
    noisy, timesteps, states = torch.randn(2, 4, 16, 16), torch.tensor([5, 700]), torch.randn(2, 77, 96)
    with torch.no_grad():
        return pipeline.unet(noisy, timesteps, states).sample


@pytest.mark.parametrize("variant", ["attention", "dora", "everything"])
def test_at_a_strength_of_0_the_pictures_are_those_of_the_base_bit_for_bit(variant: str, tmp_path: Path) -> None:
    save_lora(tmp_path, trained(VARIANTS[variant]))
    base, with_lora = opened(), opened()
    with_lora.put_on_lora(tmp_path, 0.0)
    assert [picture.tobytes() for picture in drawn(with_lora)] == [picture.tobytes() for picture in drawn(base)]


@pytest.mark.parametrize("scale", [0.5, 1.5])
@pytest.mark.parametrize("variant", ["attention", "dora", "everything"])
def test_at_any_strength_all_weights_change_by_as_much_of_what_they_change_at_1(
    variant: str, scale: float, tmp_path: Path
) -> None:
    save_lora(tmp_path, trained(VARIANTS[variant]))
    with_lora, merged, base = opened(), opened(), opened()
    with_lora.put_on_lora(tmp_path, scale)
    merge_as_comfyui_does(merged._pipeline, tmp_path / KOHYA_NAME)
    with torch.no_grad():
        for weight, before in zip(merged._pipeline.unet.parameters(), base._pipeline.unet.parameters(), strict=True):
            weight.copy_(before + scale * (weight - before))
    expected, found = predicted(merged._pipeline), predicted(with_lora._pipeline)
    assert (expected - predicted(base._pipeline)).norm() > 0.005 * expected.norm()
    assert (found - expected).norm() <= 1e-4 * expected.norm()


def test_pictures_do_not_depend_on_how_they_are_asked_for() -> None:
    """Drawn as numbers first, to see whether they are finite, they are still diffusers' own pictures."""
    pipeline = opened()
    own = pipeline._pipeline(
        prompt=[request.prompt for request in REQUESTS],
        negative_prompt=["", ""],
        generator=[torch.Generator().manual_seed(request.seed) for request in REQUESTS],
        num_inference_steps=DRAWING.steps,
        guidance_scale=DRAWING.guidance,
    ).images
    assert [picture.tobytes() for picture in drawn(pipeline)] == [picture.tobytes() for picture in own]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_lora_file_with_a_weight_that_is_not_finite_is_bad_data(value: float, tmp_path: Path) -> None:
    save_lora(tmp_path, trained({}))
    weights = load_file(tmp_path / WEIGHTS_NAME)
    name = sorted(weights)[3]
    weights[name].view(-1)[5] = value
    save_file(weights, tmp_path / WEIGHTS_NAME)
    with pytest.raises(BadData, match=f"not finite, the first in {name}"):
        opened().put_on_lora(tmp_path)


def test_a_file_that_is_no_lora_is_bad_data(tmp_path: Path) -> None:
    (tmp_path / WEIGHTS_NAME).write_bytes(b"no tensors here")
    with pytest.raises(BadData, match="cannot be read"):
        opened().put_on_lora(tmp_path)


def test_pictures_that_are_not_finite_are_bad_data_and_no_black_squares() -> None:
    pipeline = opened()
    next(pipeline._pipeline.unet.parameters()).data.fill_(float("nan"))
    with pytest.raises(BadData, match="not finite"):
        drawn(pipeline)
