"""The suite for a GPU is never passed over in silence."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_without_a_gpu_it_ends_in_one_line_that_says_so() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "SDLORA_GPU_TESTS_DEVICE"}
    end = subprocess.run(
        [sys.executable, "-m", "tests.gpu"], capture_output=True, text=True, cwd=ROOT, timeout=120,
        env=environment | {"CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert end.returncode == 1
    [line] = end.stderr.splitlines()
    assert line.startswith("there is no GPU")


def test_who_runs_all_other_tests_needs_none() -> None:
    paths = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["testpaths"]
    assert not any(Path("tests/gpu").is_relative_to(path) for path in paths)
