"""The parts of the model: objective, adapter, prompts, models by name."""

from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file
from torch.nn import functional as F

from service import miniature
from service.diffusion.lora import ADAPTER, assert_alive, load_lora_state, lora_parameters, lora_state
from service.diffusion.models import locate_model
from service.diffusion.objective import denoising_loss
from service.diffusion.sd15.components import load_components
from service.diffusion.sd15.denoiser import UNetDenoiser
from service.diffusion.sd15.lora import add_lora
from service.diffusion.sd15.lora_files import KOHYA_NAME, WEIGHTS_NAME, save_lora
from service.diffusion.sd15.noise import DDPMNoise
from service.diffusion.sd15.prompts import STATES
from service.exits import BadConfiguration, BadData, MissingInput
from service.settings.train import TrainSettings
from tests.unit.diffusion.building import small_unet


def with_lora(**options: object) -> UNet2DConditionModel:
    unet = small_unet()
    add_lora(unet, TrainSettings(**options))
    return unet


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_loss_is_the_mean_squared_error_to_what_the_model_predicts(prediction: str) -> None:
    unet, scheduler = small_unet(), DDPMScheduler(prediction_type=prediction)
    latents, noise, states = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8), torch.randn(3, 5, 12)
    timesteps = torch.tensor([1, 500, 999])
    with torch.no_grad():
        loss = denoising_loss(UNetDenoiser(unet), DDPMNoise(scheduler), latents, noise, timesteps, {STATES: states})
        alpha = scheduler.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        predicted = unet(alpha.sqrt() * latents + (1 - alpha).sqrt() * noise, timesteps, states).sample
    target = noise if prediction == "epsilon" else alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
    expected = torch.stack([F.mse_loss(p, t) for p, t in zip(predicted, target, strict=True)])
    torch.testing.assert_close(loss, expected)


def test_a_prediction_type_that_cannot_be_trained_is_named() -> None:
    scheduler = DDPMScheduler(prediction_type="sample")
    sample = torch.zeros(1, 4, 8, 8)
    with pytest.raises(BadConfiguration, match="'sample'"):
        denoising_loss(
            UNetDenoiser(small_unet()),
            DDPMNoise(scheduler),
            sample,
            sample,
            torch.tensor([1]),
            {STATES: torch.zeros(1, 5, 12)},
        )


def test_only_the_adapter_is_trained_and_it_starts_without_effect() -> None:
    plain, unet = small_unet(), with_lora()
    assert all("lora_" in name for name, parameter in unet.named_parameters() if parameter.requires_grad)
    inputs = (torch.randn(1, 4, 8, 8), torch.tensor([5]), torch.randn(1, 5, 12))
    with torch.no_grad():
        assert torch.equal(unet(*inputs).sample, plain(*inputs).sample)


def test_the_gaussian_start_has_the_spread_of_one_over_rank() -> None:
    state = lora_state(UNetDenoiser(with_lora(rank=4, init="gaussian")))
    values = torch.cat([tensor.flatten() for name, tensor in state.items() if "lora_A" in name])
    assert values.std().item() == pytest.approx(0.25, rel=0.1)


def test_the_report_puts_its_lora_into_the_attention_of_stable_diffusion_and_nowhere_else() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
        add_lora(unet, TrainSettings(profile="report"))
    state = get_peft_model_state_dict(unet)
    assert len({name.rsplit(".lora_", 1)[0] for name in state}) == 128
    assert len(state) == 256
    assert sum(parameter.numel() for parameter in lora_parameters(unet)) == 797_184
    assert sum(parameter.numel() for parameter in unet.parameters()) - 797_184 == 859_520_964

    # What is on the meta device has no values: the LoRA alone gets some, as its own configuration has it begin.
    for module in unet.modules():
        if isinstance(module, LoraLayer):
            module.lora_A.to_empty(device="cpu")
            module.lora_B.to_empty(device="cpu")
            module.reset_lora_parameters(ADAPTER, unet.peft_config[ADAPTER].init_lora_weights)
    state = get_peft_model_state_dict(unet)
    values = torch.cat([tensor.flatten() for name, tensor in state.items() if ".lora_A." in name])
    assert values.std().item() == pytest.approx(0.25, rel=0.01)
    assert not any(tensor.any() for name, tensor in state.items() if ".lora_B." in name)


def test_an_adapter_on_a_half_precision_model_is_float32() -> None:
    unet = small_unet().to(torch.bfloat16)
    add_lora(unet, TrainSettings())
    assert {parameter.dtype for parameter in lora_parameters(unet)} == {torch.float32}


def test_an_unknown_target_module_is_named_with_those_that_exist() -> None:
    with pytest.raises(BadConfiguration, match=r"'to_z'.*to_q"):
        with_lora(target_modules=["to_q", "to_z"])


def test_an_adapter_that_never_learned_anything_is_not_alive() -> None:
    with pytest.raises(BadData, match="lora_B"):
        assert_alive(lora_state(UNetDenoiser(with_lora())))


def test_an_adapter_with_a_weight_that_is_not_finite_is_not_alive() -> None:
    unet = with_lora()
    lora_parameters(unet)[1].data.fill_(float("nan"))
    with pytest.raises(BadData, match="finite"):
        assert_alive(lora_state(UNetDenoiser(unet)))


def trained(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    generator = torch.Generator().manual_seed(3)
    for parameter in lora_parameters(unet):
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return unet


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


def test_a_state_that_does_not_fit_is_refused() -> None:
    state = lora_state(UNetDenoiser(trained(with_lora(target_modules=["to_q"]))))
    with pytest.raises(BadData, match="does not fit"):
        load_lora_state(state, UNetDenoiser(with_lora()))


def test_a_model_name_that_can_be_nothing_is_refused_with_what_it_could_be() -> None:
    with pytest.raises(BadConfiguration, match="MODEL_BASE=stable diffusion is no model"):
        locate_model(TrainSettings(model_base="stable diffusion"), "model_base")


def test_a_folder_that_does_not_exist_is_missing_input() -> None:
    with pytest.raises(MissingInput, match="MODEL_VAE"):
        locate_model(TrainSettings(model_vae="./nowhere"), "model_vae")


def test_a_hub_model_is_pinned_to_its_revision() -> None:
    files = locate_model(TrainSettings(model_base="owner/name", model_base_revision="abc"), "model_base")
    assert (files.name, files.options) == ("owner/name", {"revision": "abc"})
