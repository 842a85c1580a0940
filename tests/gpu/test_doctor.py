"""What doctor says of the device that is there."""

import pytest
import torch

from service.checks.machine import check_gpu
from service.exits import BadConfiguration
from tests.gpu.device import ON_GPU


def test_the_card_its_memory_and_its_precision_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    if not ON_GPU:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert check_gpu(required=False).status == "warning"
        with pytest.raises(BadConfiguration, match="there is no GPU"):
            check_gpu(required=True)
        return
    found = check_gpu(required=True)
    assert torch.cuda.get_device_name() in found.fact
    assert ("bf16" in found.fact) == torch.cuda.is_bf16_supported()
