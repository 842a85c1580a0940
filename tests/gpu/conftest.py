"""Tests of a GPU: without one they fail rather than are skipped, for a suite that was skipped proves nothing."""

from collections.abc import Iterator

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from tests.gpu.device import ON_GPU, missing


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever lies in this folder is marked."""
    for item in items:
        if "tests/gpu/" in item.path.as_posix():
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(autouse=True)
def needs_device() -> Iterator[None]:
    if reason := missing():
        pytest.fail(reason, pytrace=False)
    # A process has one precision and one device as a rule.
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    if ON_GPU:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


@pytest.fixture
def accelerator() -> Accelerator:
    return Accelerator(cpu=not ON_GPU)
