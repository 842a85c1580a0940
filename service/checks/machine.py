"""The machine: GPU and driver, disk, shared memory."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from service.checks.result import CheckResult, ok, warning
from service.exits import BadConfiguration, BadData, InputOutput
from service.storage.disk import disk_errors

if TYPE_CHECKING:
    import torch

GIB = 1 << 30
SHM = Path("/dev/shm")
SHM_BYTES = GIB // 2
# What the kernel shows of a driver or a card, whether or not torch can use them.
NVIDIA = (Path("/proc/driver/nvidia/version"), Path("/dev/nvidiactl"), Path("/dev/nvidia0"))
SIDE = 64


def check_gpu(required: bool) -> CheckResult:
    """Whether torch can compute on a GPU, and rightly so."""
    import torch

    if not torch.cuda.is_available():
        if any(path.exists() for path in NVIDIA):
            raise BadConfiguration(
                f"there is an NVIDIA GPU and torch {torch.__version__} cannot use it; update the driver for CUDA "
                f"{torch.version.cuda}, and start the container with --gpus all or nvidia.com/gpu"
            )
        advice = "give the container a GPU (--gpus all, or nvidia.com/gpu: 1); without one only the miniature is quick"
        if required:
            raise BadConfiguration(f"there is no GPU, and DOCTOR_REQUIRE_GPU is set; {advice}")
        return warning("GPU", "there is none; the jobs work on the CPU", advice)
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    for index in range(len(names)):
        _multiply(torch.device("cuda", index))
    free = min(torch.cuda.mem_get_info(index)[0] for index in range(len(names))) / GIB
    found = f"{len(names)} × {names[0]}, {free:.1f} GiB free, CUDA {torch.version.cuda}"
    if not torch.cuda.is_bf16_supported():
        return warning("GPU", f"{found}, without bf16", "set TRAIN_MIXED_PRECISION=fp16; `auto` trains in fp32 here")
    return ok("GPU", f"{found}, bf16")


def _multiply(device: "torch.device") -> None:
    """A product that is known: a driver may be listed and still fail at the first kernel."""
    import torch

    for dtype in (torch.float32, torch.bfloat16) if torch.cuda.is_bf16_supported() else (torch.float32,):
        ones = torch.ones(SIDE, SIDE, device=device, dtype=dtype)
        if not bool((ones @ ones == SIDE).all()):
            raise BadData(f"{device} multiplies wrongly in {dtype}; drain the node and have the card looked at")


def check_disk(work_dir: Path, least_gib: float) -> CheckResult:
    """Whether WORK_DIR can be written to, and holds what the jobs put there."""
    with disk_errors(work_dir, "WORK_DIR"):
        work_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=work_dir) as probe:
            probe.write(b"written by sdlora doctor")
            probe.flush()
            os.fsync(probe.fileno())
        free = shutil.disk_usage(work_dir).free / GIB
    if free < least_gib:
        raise InputOutput(
            f"WORK_DIR={work_dir} has {free:.1f} GiB free, and DOCTOR_MIN_DISK_GIB={least_gib:g}; free space, or set WORK_DIR "
            "to a larger volume"
        )
    return ok("disk", f"WORK_DIR={work_dir} can be written to, {free:.1f} GiB free")


def check_shared_memory(folder: Path = SHM, least: int = SHM_BYTES) -> CheckResult:
    """Processes that train together exchange their gradients through it; a full one kills them with a bus error."""
    advice = "docker run --shm-size 2g, or an emptyDir with `medium: Memory` at /dev/shm"
    if not os.access(folder, os.W_OK):
        return warning("shared memory", f"{folder} cannot be written to", advice)
    free = shutil.disk_usage(folder).free
    if free < least:
        return warning("shared memory", f"{folder} has {free / GIB:.2f} GiB free", advice)
    return ok("shared memory", f"{folder} has {free / GIB:.1f} GiB free")
