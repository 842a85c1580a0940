"""Every kind of LoRA that can be trained: where it sits, and that its files give the trained model back."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open

from service import miniature
from service.diffusion.lora import WEIGHTS_NAME, assert_effect, lora_parameters, lora_state
from service.diffusion.sd15.components import load_components
from service.diffusion.sd15.denoiser import UNetDenoiser
from service.diffusion.sd15.lora_files import KOHYA_NAME, save_lora
from service.diffusion.sd15.prompts import STATES, TOKENS, tokenize_prompt
from service.exits import BadData
from service.settings.train import TrainSettings
from tests.unit.diffusion.sd15.variants import VARIANTS, merge_as_comfyui_does, trained


def prediction(denoiser: UNetDenoiser, pipeline: StableDiffusionPipeline) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the trained model, and of the pipeline as it is now, for the same prompts."""
    torch.manual_seed(1)
    noisy, timesteps = torch.randn(2, 4, 16, 16), torch.tensor([5, 700])
    tokens = tokenize_prompt(pipeline.tokenizer, ["a cat", "8-bit illustration, a house"])
    with torch.no_grad():
        loaded = pipeline.unet(noisy, timesteps, pipeline.text_encoder(tokens)[0]).sample
        condition = {TOKENS: tokens, STATES: pipeline.text_encoder(tokens)[0]}
        return denoiser(noisy, timesteps, condition), loaded


def fresh_pipeline() -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(
        miniature.STABLE_DIFFUSION, dtype=torch.float32, local_files_only=True
    )


# diffusers reads no magnitudes (DoRA) from kohya's form; the test after this one does.
READ_BY_DIFFUSERS = [
    (variant, name) for variant, options in VARIANTS.items() for name in (WEIGHTS_NAME, KOHYA_NAME)
    if name == WEIGHTS_NAME or "dora" not in options
]  # fmt: skip


@pytest.mark.parametrize(("variant", "name"), READ_BY_DIFFUSERS)
def test_either_file_gives_the_trained_model_back_merged_or_not(variant: str, name: str, tmp_path: Path) -> None:
    denoiser, pipeline = trained(VARIANTS[variant]), fresh_pipeline()
    save_lora(tmp_path, denoiser)
    _, base = prediction(denoiser, pipeline)
    pipeline.load_lora_weights(str(tmp_path), weight_name=name, local_files_only=True)
    expected, loaded = prediction(denoiser, pipeline)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    _, merged = prediction(denoiser, pipeline)
    assert (expected - base).norm() > 0.01 * base.norm()
    assert (loaded - expected).norm() <= 1e-5 * expected.norm()
    assert (merged - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("variant", VARIANTS)
def test_merged_by_kohyas_rules_the_file_gives_the_trained_model_back(variant: str, tmp_path: Path) -> None:
    denoiser, pipeline = trained(VARIANTS[variant]), fresh_pipeline()
    save_lora(tmp_path, denoiser)
    merge_as_comfyui_does(pipeline, tmp_path / KOHYA_NAME)
    expected, found = prediction(denoiser, pipeline)
    assert (found - expected).norm() <= 1e-5 * expected.norm()


def test_kohyas_names_are_those_that_other_programs_look_for(tmp_path: Path) -> None:
    denoiser = trained(VARIANTS["everything"])
    save_lora(tmp_path, denoiser)
    with safe_open(tmp_path / KOHYA_NAME, "pt") as file:
        names = set(file.keys())
        assert "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight" in names
        assert "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0.alpha" in names
        assert "lora_unet_down_blocks_0_resnets_0_conv1.dora_scale" in names
        assert {name.rsplit(".", 1)[0].split(".")[0][:9] for name in names} == {"lora_unet", "lora_te_t"}
        assert file.metadata()["modelspec.architecture"] == "stable-diffusion-v1/lora"


def test_the_facts_of_the_training_are_in_the_header(tmp_path: Path) -> None:
    denoiser = trained({})
    for name in (WEIGHTS_NAME, KOHYA_NAME):
        save_lora(tmp_path, denoiser, facts={"modelspec.title": "ours", "ss_seed": "7"})
        with safe_open(tmp_path / name, "pt") as file:
            assert file.metadata()["modelspec.title"] == "ours"
            assert file.metadata()["ss_seed"] == "7"


def test_targets_can_be_named_by_group() -> None:
    settings = TrainSettings.model_validate({"target_modules": "attention,conv1"})
    assert settings.target_modules == ["to_k", "to_q", "to_v", "to_out.0", "conv1"]


def test_a_lora_without_effect_is_found_by_what_the_model_predicts() -> None:
    parts = load_components(TrainSettings(model_base="miniature"))
    denoiser = parts.trainable(TrainSettings(), torch.float32)
    inputs = (torch.randn(1, 4, 16, 16), torch.tensor([500]), {STATES: torch.randn(1, 77, 96)})
    with pytest.raises(BadData, match="has no effect"):
        assert_effect(denoiser, *inputs)
    assert set(lora_state(denoiser)) == {n for n in lora_state(denoiser) if n.startswith("unet.")}
    lora_parameters(parts.unet)[1].data.fill_(0.1)
    assert_effect(denoiser, *inputs)
