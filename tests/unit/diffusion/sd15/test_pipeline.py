"""Drawing with a LoRA on: at any strength, and never with figures that are not finite."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from PIL import Image
from safetensors.torch import load_file, save_file

from service.diffusion.drawing.requests import Drawing, Request
from service.diffusion.lora import ADAPTER, WEIGHTS_NAME, lora_state, part_of
from service.diffusion.sd15.lora_files import save_lora
from service.diffusion.sd15.pipeline import SD15Pipeline, open_pipeline
from service.diffusion.sd15.prompts import TOKENS, tokenize_prompt
from service.exits import BadData
from service.settings.infer import InferSettings
from tests.unit.diffusion.building import elsewhere
from tests.unit.diffusion.sd15.variants import VARIANTS, merge_as_diffusers_without_header_does, trained

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
    merge_as_diffusers_without_header_does(merged._pipeline, tmp_path / WEIGHTS_NAME)
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


@pytest.mark.parametrize("text_encoder", [False, True])
def test_a_dora_in_kohyas_form_is_refused_as_diffusers_would_leave_its_lengths_out(
    text_encoder: bool, tmp_path: Path
) -> None:
    """As other trainers write it, and as older versions of this program did."""
    save_lora(tmp_path, trained({"text_encoder": text_encoder}))
    weights = load_file(tmp_path / elsewhere("lora"))
    lengths = {name.replace("alpha", "dora_scale"): torch.ones(3, 1) for name in weights if name.endswith(".alpha")}
    save_file(weights | lengths, tmp_path / WEIGHTS_NAME)
    with pytest.raises(BadData, match="DoRA in kohya's form"):
        opened().put_on_lora(tmp_path)


@pytest.mark.parametrize("options", [{"lora_alpha": 12}, {"rslora": True, "rank": 8}, {"dora": True, "lora_alpha": 8}])
def test_a_file_with_its_alpha_in_the_header_is_put_on_as_it_was_trained(
    options: dict[str, object], tmp_path: Path
) -> None:
    """The form of diffusers' own scripts, and of older versions of this program, also without `text_model.` in the names."""
    denoiser = trained({"text_encoder": True, **options})
    state = lora_state(denoiser)
    layers = {part: convert_state_dict_to_diffusers(part_of(state, part)) for part in ("unet", "text_encoder")}
    configs = {part: model.peft_config[ADAPTER].to_dict() for part, model in denoiser.adapted.items()}
    for config in configs.values():
        config["target_modules"] = sorted(config["target_modules"])
    StableDiffusionPipeline.save_lora_weights(
        tmp_path,
        unet_lora_layers=layers["unet"],
        text_encoder_lora_layers=layers["text_encoder"],
        unet_lora_adapter_metadata=configs["unet"],
        text_encoder_lora_adapter_metadata=configs["text_encoder"],
        weight_name=WEIGHTS_NAME,
    )
    assert any(name.startswith("text_encoder.encoder.") for name in load_file(tmp_path / WEIGHTS_NAME))
    with_lora = opened()
    with_lora.put_on_lora(tmp_path)
    tokens = tokenize_prompt(with_lora._pipeline.tokenizer, ["a cat", "8-bit illustration, a house"])
    noisy, timesteps = torch.randn(2, 4, 16, 16), torch.tensor([5, 700])
    with torch.no_grad():
        expected = denoiser(noisy, timesteps, {TOKENS: tokens})
        states = with_lora._pipeline.text_encoder(tokens)[0]
        found = with_lora._pipeline.unet(noisy, timesteps, states).sample
    assert (found - expected).norm() <= 1e-5 * expected.norm()
