"""The adapter: where it sits, how it begins, and whether it is alive."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict

from service.diffusion.lora import ADAPTER, assert_alive, load_lora_state, lora_parameters, lora_state
from service.diffusion.sd15.denoiser import UNetDenoiser
from service.diffusion.sd15.lora import add_lora
from service.exits import BadConfiguration, BadData
from service.settings.train import TrainSettings
from tests.unit.diffusion.building import small_unet, trained, with_lora


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


def test_a_state_that_does_not_fit_is_refused() -> None:
    state = lora_state(UNetDenoiser(trained(with_lora(target_modules=["to_q"]))))
    with pytest.raises(BadData, match="does not fit"):
        load_lora_state(state, UNetDenoiser(with_lora()))
