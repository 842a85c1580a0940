"""TRAIN_DETERMINISTIC: what torch may do while it holds, and no longer."""

import os

import pytest
import torch

from service.training.determinism import CUBLAS_WORKSPACE, deterministic_kernels


def test_operations_without_a_deterministic_kernel_are_refused_in_the_block_and_after_it_as_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(CUBLAS_WORKSPACE, raising=False)
    with deterministic_kernels(True):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()  # attention is deterministic only then
        assert os.environ[CUBLAS_WORKSPACE] == ":4096:8"
    assert not torch.are_deterministic_algorithms_enabled()


def test_without_the_setting_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CUBLAS_WORKSPACE, raising=False)
    with deterministic_kernels(False):
        assert not torch.are_deterministic_algorithms_enabled()
    assert CUBLAS_WORKSPACE not in os.environ
