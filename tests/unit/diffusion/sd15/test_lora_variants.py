"""Every kind of LoRA that can be trained: where it sits, and that its files give the trained model back."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from service import miniature
from service.diffusion.lora import WEIGHTS_NAME, assert_effect, lora_parameters, lora_state
from service.diffusion.sd15.components import load_components
from service.diffusion.sd15.denoiser import UNetDenoiser
from service.diffusion.sd15.lora_files import save_lora
from service.diffusion.sd15.prompts import STATES, TOKENS, tokenize_prompt
from service.exits import BadData
from service.settings.train import TrainSettings
from tests.unit.diffusion.building import elsewhere, header_of
from tests.unit.diffusion.sd15.variants import (
    FOR_OTHERS,
    VARIANTS,
    merge_as_comfyui_does,
    merge_as_diffusers_without_header_does,
    trained,
)

OTHER = elsewhere("lora")


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


Saved = Callable[[str], tuple[UNetDenoiser, Path]]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """The trained model of a variant, and the folder with its files."""

    @cache
    def save(variant: str) -> tuple[UNetDenoiser, Path]:
        denoiser, folder = trained(VARIANTS[variant]), tmp_path_factory.mktemp("saved")
        save_lora(folder, denoiser)
        return denoiser, folder

    return save


@pytest.mark.parametrize(
    ("variant", "name"), [*((variant, WEIGHTS_NAME) for variant in VARIANTS), *((v, OTHER) for v in FOR_OTHERS)]
)
def test_either_file_gives_the_trained_model_back_merged_or_not(variant: str, name: str, saved: Saved) -> None:
    (denoiser, folder), pipeline = saved(variant), fresh_pipeline()
    _, base = prediction(denoiser, pipeline)
    pipeline.load_lora_weights(str(folder), weight_name=name, local_files_only=True)
    expected, loaded = prediction(denoiser, pipeline)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    _, merged = prediction(denoiser, pipeline)
    assert (expected - base).norm() > 0.01 * base.norm()
    assert (loaded - expected).norm() <= 1e-5 * expected.norm()
    assert (merged - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("variant", FOR_OTHERS)
def test_merged_by_kohyas_rules_the_file_gives_the_trained_model_back(variant: str, saved: Saved) -> None:
    (denoiser, folder), pipeline = saved(variant), fresh_pipeline()
    merge_as_comfyui_does(pipeline, folder / OTHER)
    expected, found = prediction(denoiser, pipeline)
    assert (found - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_diffusers_that_reads_no_alpha_makes_the_trained_model_of_it_too(variant: str, saved: Saved) -> None:
    (denoiser, folder), pipeline = saved(variant), fresh_pipeline()
    merge_as_diffusers_without_header_does(pipeline, folder / WEIGHTS_NAME)
    expected, found = prediction(denoiser, pipeline)
    assert (found - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("variant", ["attention", "everything"])
def test_no_header_tells_peft_what_another_version_of_it_does_not_know(variant: str, saved: Saved) -> None:
    """diffusers 0.35 gives each entry of lora_adapter_metadata to its own PEFT, and fails over one that is new."""
    _, folder = saved(variant)
    assert "lora_adapter_metadata" not in header_of(folder / WEIGHTS_NAME)


@pytest.mark.parametrize("variant", [variant for variant in VARIANTS if variant not in FOR_OTHERS])
def test_a_dora_has_no_file_for_programs_that_apply_another_lora_of_it(variant: str, tmp_path: Path) -> None:
    files = save_lora(tmp_path, trained(VARIANTS[variant]))
    assert files.elsewhere is None
    assert "DoRA" in files.missing
    assert [file.name for file in tmp_path.rglob("*.safetensors")] == [WEIGHTS_NAME]


@pytest.mark.parametrize("variant", FOR_OTHERS)
def test_the_alpha_in_a_header_is_that_of_its_file(variant: str, saved: Saved) -> None:
    _, folder = saved(variant)
    settings = TrainSettings.model_validate(VARIANTS[variant])
    scale = settings.lora_alpha / (settings.rank**0.5 if settings.rslora else settings.rank)
    for name, expected in ((OTHER, scale), (WEIGHTS_NAME, 1.0)):
        facts = header_of(folder / name)
        assert float(facts["ss_network_alpha"]) / int(facts["ss_network_dim"]) == pytest.approx(expected, rel=1e-6)
    [alpha] = {float(tensor) for key, tensor in load_file(folder / OTHER).items() if key.endswith(".alpha")}
    assert alpha == pytest.approx(float(header_of(folder / OTHER)["ss_network_alpha"]), rel=1e-6)


def test_kohyas_names_are_those_that_other_programs_look_for(saved: Saved) -> None:
    _, folder = saved("all but dora")
    names = load_file(folder / OTHER).keys()
    assert "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight" in names
    assert "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0.alpha" in names
    assert "lora_unet_down_blocks_0_resnets_0_conv1.lora_up.weight" in names
    assert {name.rsplit(".", 1)[0].split(".")[0][:9] for name in names} == {"lora_unet", "lora_te_t"}
    assert header_of(folder / OTHER)["modelspec.architecture"] == "stable-diffusion-v1/lora"


def test_the_text_encoders_names_are_those_of_transformers_4(saved: Saved) -> None:
    _, folder = saved("text-encoder")
    names = [name for name in load_file(folder / WEIGHTS_NAME) if not name.startswith("unet.")]
    assert names
    assert all(name.startswith("text_encoder.text_model.encoder.layers.") for name in names)


def test_the_facts_of_the_training_are_in_both_headers(tmp_path: Path) -> None:
    facts = {"modelspec.title": "ours", "ss_seed": "7"}
    save_lora(tmp_path, trained({}), "ours", facts=facts)
    for name in (elsewhere("ours"), WEIGHTS_NAME):
        assert facts.items() <= header_of(tmp_path / name).items()


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
