"""The image: what it is made of, and the four jobs in it against a real S3 server."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from service.artifacts.publishing import list_artifacts
from service.exits import ExitCode
from service.settings.demo import DEMO_VARIABLES
from service.storage.opening import open_store
from tests.conftest import use
from tests.container.image import Image
from tests.servers import S3Server

ROOT = Path(__file__).parents[2]
PREFIX = "team/style"
RUN = f"runs/{DEMO_VARIABLES['RUN_ID']}"
LORA = f"{RUN}/lora/pytorch_lora_weights.safetensors"
SECONDS_FOR_THE_DEMO = 3600


def test_without_arguments_the_image_lists_the_jobs(image: Image) -> None:
    shown = image.run()
    assert shown.returncode == ExitCode.DONE, shown.stderr
    for job in ("data-prep", "train", "infer", "evaluate"):
        assert job in shown.stdout


def test_the_help_of_a_job_names_its_flags(image: Image) -> None:
    shown = image.run("train", "--help")
    assert shown.returncode == ExitCode.DONE, shown.stderr
    assert "--train-max-steps" in shown.stdout


def test_the_image_tells_the_commit_that_it_was_built_from(image: Image) -> None:
    commit = image.configuration()["Labels"]["org.opencontainers.image.revision"]
    told = image.python("from service.artifacts.code import code_version; print(code_version())")
    assert told.partition("+")[2] == commit
    assert commit or not (ROOT / ".git").exists()


def test_tini_waits_on_the_job_and_signals_no_process_group(image: Image) -> None:
    assert image.configuration()["Entrypoint"] == ["tini", "--", "sdlora"]


def test_the_user_is_a_number_with_a_name_and_a_writable_home(image: Image) -> None:
    assert image.configuration()["User"] == "10001:10001"
    told = image.python(
        "import getpass, os, pathlib, pwd;"
        "(pathlib.Path.home() / 'probe').write_text('');"
        "print(os.getuid(), os.getgid(), getpass.getuser(), pwd.getpwuid(os.getuid()).pw_dir == os.environ['HOME'])"
    )
    assert told == "10001 10001 sdlora True"


def test_the_caches_of_all_libraries_are_below_the_one_writable_mount(image: Image) -> None:
    variables = dict(variable.split("=", 1) for variable in image.configuration()["Env"])
    caches = ("WORK_DIR", "XDG_CACHE_HOME", "HF_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "MPLCONFIGDIR")
    assert all(variables[name].startswith("/tmp/") for name in caches)


def test_the_learning_libraries_load_and_their_bytecode_is_in_the_image(image: Image) -> None:
    program = """
import importlib.util, pathlib, sys
import torch, torchvision, diffusers, transformers, peft, accelerate, datasets, boto3, matplotlib.pyplot
from diffusers import StableDiffusionPipeline

def compiled(source):
    cached = pathlib.Path(importlib.util.cache_from_source(source))
    # PEP 552: the time of the source is in bytes 8 to 12; one that differs makes Python compile again.
    return cached.exists() and int.from_bytes(cached.read_bytes()[8:12], "little") == int(pathlib.Path(source).stat().st_mtime)

sources = [module.__file__ for module in list(sys.modules.values()) if getattr(module, "__file__", None)]
sources = [source for source in sources if source.startswith("/opt/sdlora/") and source.endswith(".py")]
print(len(sources) > 1000, [source for source in sources if not compiled(source)])
"""
    assert image.python(program) == "True []"


def test_the_decoders_of_the_further_formats_are_in_the_image(image: Image) -> None:
    checked = image.run("config", "--check", variables={"DATA_PREP_EXTRA_FORMATS": "heic, avif"})
    assert checked.returncode == ExitCode.DONE, checked.stderr


def test_the_image_installs_nothing_and_tells_nothing_of_where_it_was_built(image: Image) -> None:
    left = image.python(
        "import importlib.util, pathlib;"
        "print(importlib.util.find_spec('pip'), [str(p) for p in map(pathlib.Path, ('/root/.cache', '/build')) if p.exists()])",
        "--user=0",
        # Root without capabilities may not look into other folders; this one may, to see that nothing is there.
        "--cap-add=DAC_READ_SEARCH",
    )
    assert left == "None []"
    assert "PIP_" not in image.history()
    assert not [variable for variable in image.configuration()["Env"] if variable.startswith("PIP_")]


def test_the_labels_state_the_version_of_the_package(image: Image) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    labels = image.configuration()["Labels"]
    assert labels["org.opencontainers.image.version"] == project["version"]
    assert labels["org.opencontainers.image.description"] == project["description"]
    assert labels["org.opencontainers.image.licenses"] == project["license"]


@pytest.mark.parametrize(("variable", "value"), [("TRAIN_MAX_STEPS", "-1"), ("TRAIN_MAX_STEP", "10")])
def test_a_bad_configuration_ends_in_one_line_that_names_the_variable_and_exit_78(
    image: Image, variable: str, value: str
) -> None:
    refused = image.run("train", variables={variable: value})
    assert refused.returncode == ExitCode.BAD_CONFIGURATION
    [line] = (refused.stdout + refused.stderr).splitlines()
    assert variable in json.loads(line)["error"]


@pytest.mark.timeout(2 * SECONDS_FOR_THE_DEMO)
def test_the_four_jobs_told_by_variables_alone_train_the_lora_that_the_demo_trains_outside(
    image: Image, moto: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = moto.new_bucket()
    variables = {
        **DEMO_VARIABLES,
        **moto.environment,
        "ARTIFACTS_URI": f"s3://{bucket}/{PREFIX}",
        "HF_HUB_OFFLINE": "1",
    }
    for job in ("data-prep", "train", "infer", "evaluate"):
        ended = image.run(job, variables=variables)
        assert ended.returncode == ExitCode.DONE, f"{job}: {ended.stderr}"

    artifacts = tmp_path / "artifacts"
    run_the_demo(artifacts, tmp_path)
    use(moto, monkeypatch)
    store = open_store(f"s3://{bucket}/{PREFIX}")
    assert store.get(LORA) == (artifacts / LORA).read_bytes()
    for results in (f"{RUN}/images", f"{RUN}/evaluation"):
        assert list_artifacts(store, results) == list_artifacts(open_store(str(artifacts)), results) != []


def run_the_demo(artifacts: Path, work_dir: Path) -> None:
    """The same four jobs in this machine's own Python."""
    ended = subprocess.run(
        [sys.executable, "-m", "service", "demo"],
        cwd=ROOT,
        env={**os.environ, "ARTIFACTS_URI": str(artifacts), "WORK_DIR": str(work_dir / "work")},
        capture_output=True,
        text=True,
        timeout=SECONDS_FOR_THE_DEMO,
        check=False,
    )
    assert ended.returncode == ExitCode.DONE, ended.stderr
