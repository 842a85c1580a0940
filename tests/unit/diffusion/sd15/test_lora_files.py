"""The files of a LoRA: other programs know them, and they give the trained model back."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from service import miniature
from service.diffusion.lora import WEIGHTS_NAME, lora_state
from service.diffusion.sd15.components import load_components
from service.diffusion.sd15.denoiser import UNetDenoiser
from service.diffusion.sd15.lora import add_lora
from service.diffusion.sd15.lora_files import save_lora
from service.settings.train import TrainSettings
from tests.unit.diffusion.building import elsewhere, small_unet, trained, with_lora


def test_the_saved_file_gives_the_output_of_the_trained_model_back_even_when_alpha_is_not_the_rank(
    tmp_path: Path,
) -> None:
    unet = trained(with_lora(rank=4, lora_alpha=12))
    files = save_lora(tmp_path, UNetDenoiser(unet))
    again = small_unet()
    again.load_lora_adapter(str(tmp_path), weight_name=files.weights, prefix="unet", local_files_only=True)
    inputs = (torch.randn(1, 4, 8, 8), torch.tensor([5]), torch.randn(1, 5, 12))
    with torch.no_grad():
        torch.testing.assert_close(again(*inputs).sample, unet(*inputs).sample, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [WEIGHTS_NAME, elsewhere("lora")])
@pytest.mark.parametrize("alpha", [4, 12])
def test_a_pipeline_that_loads_either_file_draws_as_the_trained_model_does_merged_or_not(
    name: str, alpha: float, tmp_path: Path
) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(miniature.STABLE_DIFFUSION, local_files_only=True)
    unet = load_components(TrainSettings(model_base="miniature")).unet
    add_lora(unet, TrainSettings(rank=4, lora_alpha=alpha))
    save_lora(tmp_path, UNetDenoiser(trained(unet)))
    inputs = (torch.randn(2, 4, 8, 8), torch.tensor([5, 700]), torch.randn(2, 77, unet.config["cross_attention_dim"]))
    with torch.no_grad():
        expected, base = unet(*inputs).sample, pipeline.unet(*inputs).sample
        pipeline.load_lora_weights(str(tmp_path), weight_name=name, local_files_only=True)
        loaded = pipeline.unet(*inputs).sample
        pipeline.fuse_lora()
        pipeline.unload_lora_weights()
        merged = pipeline.unet(*inputs).sample
    assert (expected - base).norm() > 0.01 * base.norm()
    assert (loaded - expected).norm() <= 1e-5 * expected.norm()
    assert (merged - expected).norm() <= 1e-5 * expected.norm()


def test_the_file_has_the_keys_that_other_programs_know(tmp_path: Path) -> None:
    save_lora(tmp_path, UNetDenoiser(trained(with_lora())))
    keys = load_file(tmp_path / WEIGHTS_NAME).keys()
    assert {key.split(".")[0] for key in keys} == {"unet"}
    assert "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora.down.weight" in keys
    assert "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora.up.weight" in keys


@pytest.mark.parametrize("name", [WEIGHTS_NAME, elsewhere("ours")])
def test_saving_twice_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    first, second = (tmp_path / place for place in "ab")
    for folder in (first, second):
        save_lora(folder, UNetDenoiser(trained(with_lora())), "ours", {"ss_seed": "7"})
    assert (first / name).read_bytes() == (second / name).read_bytes()


def test_diffusers_finds_its_own_file_by_itself_though_the_other_is_there_too(tmp_path: Path) -> None:
    save_lora(tmp_path, UNetDenoiser(trained(with_lora())), "pytorch_lora_weights")
    state, alphas = StableDiffusionPipeline.lora_state_dict(str(tmp_path), local_files_only=True)
    assert alphas is None
    assert state.keys() == load_file(tmp_path / WEIGHTS_NAME).keys()


@pytest.mark.parametrize("alpha", [2, 8, 16])
def test_a_scale_that_is_a_power_of_two_changes_no_bit_of_a_weight(alpha: float, tmp_path: Path) -> None:
    unet = trained(with_lora(rank=4, lora_alpha=alpha))
    state = lora_state(UNetDenoiser(unet))
    save_lora(tmp_path, UNetDenoiser(unet))
    written = load_file(tmp_path / WEIGHTS_NAME)
    name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    assert torch.equal(written[f"unet.{name}.lora.up.weight"] / (alpha / 4), state[f"unet.{name}.lora_B.weight"])
    assert torch.equal(written[f"unet.{name}.lora.down.weight"], state[f"unet.{name}.lora_A.weight"])
