"""The files of a LoRA: other programs know them, and they give the trained model back."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from service import miniature
from service.diffusion.lora import WEIGHTS_NAME
from service.diffusion.sd15.components import load_components
from service.diffusion.sd15.denoiser import UNetDenoiser
from service.diffusion.sd15.lora import add_lora
from service.diffusion.sd15.lora_files import KOHYA_NAME, save_lora
from service.settings.train import TrainSettings
from tests.unit.diffusion.building import small_unet, trained, with_lora


def test_the_saved_file_gives_the_output_of_the_trained_model_back_even_when_alpha_is_not_the_rank(
    tmp_path: Path,
) -> None:
    unet = trained(with_lora(rank=4, lora_alpha=12))
    file = save_lora(tmp_path, UNetDenoiser(unet))
    again = small_unet()
    again.load_lora_adapter(str(tmp_path), weight_name=file.name, prefix="unet", local_files_only=True)
    inputs = (torch.randn(1, 4, 8, 8), torch.tensor([5]), torch.randn(1, 5, 12))
    with torch.no_grad():
        torch.testing.assert_close(again(*inputs).sample, unet(*inputs).sample, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [WEIGHTS_NAME, KOHYA_NAME])
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
    keys = load_file(save_lora(tmp_path, UNetDenoiser(trained(with_lora())))).keys()
    assert {key.split(".")[0] for key in keys} == {"unet"}
    assert "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora.down.weight" in keys
    assert "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora.up.weight" in keys


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    first = save_lora(tmp_path / "a", UNetDenoiser(trained(with_lora()))).read_bytes()
    assert save_lora(tmp_path / "b", UNetDenoiser(trained(with_lora()))).read_bytes() == first
