"""The device that these tests are for: a GPU, or what SDLORA_GPU_TESTS_DEVICE names, to prove the tests themselves."""

import os

import torch

DEVICE = torch.device(os.environ.get("SDLORA_GPU_TESTS_DEVICE", "cuda"))
ON_GPU = DEVICE.type == "cuda"


def missing() -> str | None:
    """Why the tests cannot run here, in one line; None where they can."""
    if not ON_GPU or torch.cuda.is_available():
        return None
    return (
        f"there is no GPU that torch {torch.__version__} can use: the tests of tests/gpu need one; "
        "SDLORA_GPU_TESTS_DEVICE=cpu runs them on the CPU, which proves the tests and nothing about a GPU"
    )


def described() -> str:
    """The device, driver and versions, for whoever writes figures down."""
    if not ON_GPU:
        return f"{DEVICE}, torch {torch.__version__}"
    card = torch.cuda.get_device_properties(DEVICE)
    return f"{card.name}, {card.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}, torch {torch.__version__}"
