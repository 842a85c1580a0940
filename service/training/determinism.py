"""Kernels that give the same bits each time: on a GPU torch prefers those that add in any order, which are faster."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def deterministic_kernels(wanted: bool) -> Iterator[None]:
    """A block in which torch takes none but deterministic kernels, and raises RuntimeError where it has none; if `wanted`."""
    if not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    # cuBLAS reads it with its first product: its workspaces are else shared between streams, in any order.
    os.environ.setdefault(CUBLAS_WORKSPACE, ":4096:8")
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
