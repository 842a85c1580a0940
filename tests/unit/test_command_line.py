"""What a person or a pod sees of `sdlora` before any job runs."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import service
from service.__main__ import run
from service.exits import MEANINGS, AccessDenied, ExitCode, PassedOn, ServiceError, judge
from service.settings.catalogue import JOBS

HEAVY = ("torch", "boto3", "diffusers", "transformers", "datasets", "numpy", "pydantic")
MODELS = ("torch", "torchvision", "diffusers", "transformers", "peft", "accelerate", "datasets", "PIL")


def test_help_names_every_job_and_imports_nothing_heavy() -> None:
    program = (
        "import sys; from service.__main__ import run; code = run(['--help']);"
        f"print(code, [name for name in {HEAVY} if name in sys.modules])"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert output.splitlines()[-1] == "0 []"
    assert all(f"  {job} " in output for job in JOBS)


def test_the_settings_are_shown_without_importing_what_only_jobs_need() -> None:
    program = (
        "import sys; from service.__main__ import run; code = run(['config', '--check']);"
        "print(code, [name for name in ('torch', 'boto3', 'diffusers', 'transformers') if name in sys.modules])"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert output.splitlines()[-1] == "0 []"


def test_every_job_explains_its_own_flags(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run(["train", "--help"])
    assert end.value.code == 0
    assert "--train-max-steps" in capsys.readouterr().out


def test_an_unknown_job_is_a_bad_configuration_that_names_the_jobs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["trian"]) == ExitCode.BAD_CONFIGURATION
    assert "data-prep" in capsys.readouterr().err


def test_config_shows_every_variable_with_its_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRAIN_RANK", "7")
    assert run(["config"]) == ExitCode.DONE
    shown = json.loads(capsys.readouterr().out)
    assert shown["TRAIN_RANK"] == 7
    assert shown["ARTIFACTS_URI"] == "./artifacts"


def test_an_error_that_the_user_can_act_on_is_one_json_line_with_its_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRAIN_RANK", "none")
    assert run(["train"]) == ExitCode.BAD_CONFIGURATION
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    event = json.loads(lines[0])
    assert (event["event"], event["exit_code"]) == ("failed", 78)
    assert "TRAIN_RANK" in event["error"]


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
        (errno.EROFS, "make it writable"),
        (errno.EACCES, "make it writable"),
        (errno.EIO, "check the volume"),
        (errno.ENOTDIR, "check the volume"),
    ],
)
def test_a_full_a_read_only_and_a_failing_disk_are_named_with_the_file_and_what_to_do(number: int, advice: str) -> None:
    code, message = judge(OSError(number, "told by the system", "/data/file.png"))
    assert code == ExitCode.INPUT_OUTPUT
    assert "/data/file.png" in message
    assert advice in message


def test_every_exit_code_has_a_meaning_and_an_advice() -> None:
    assert set(MEANINGS) == set(ExitCode)
    assert [meaning for meaning in MEANINGS.values() if not meaning.what or not meaning.next] == []


def test_the_error_of_a_bug_is_one_line_however_many_a_library_wrote() -> None:
    assert judge(RuntimeError("first\n  second"))[1] == "RuntimeError: first second"


def test_an_exception_of_ours_keeps_its_code_and_anything_else_is_a_bug() -> None:
    assert judge(AccessDenied("no"))[0] == ExitCode.ACCESS_DENIED
    assert judge(KeyError("x")) == (ExitCode.BUG, "KeyError: 'x'")


def test_every_failure_but_a_bug_has_a_code_of_its_own() -> None:
    codes = [error.exit_code for error in ServiceError.__subclasses__() if error is not PassedOn]
    assert len(codes) == len(set(codes))
    assert ExitCode.DONE not in codes
    assert ExitCode.BUG not in codes


ELSEWHERE = {"ARTIFACTS_URI": "artifacts"}
WRONG: dict[str, dict[str, str]] = {
    f"{job.name} with a value that cannot be": {"LOG_LEVEL": "loud"} for job in JOBS.values() if not job.reads_flags
} | {
    "train with a misspelt variable": {"TRAIN_RNAK": "4"},
    "train with a batch that cannot be shared": {"TRAIN_BATCH_SIZE": "4", "TRAIN_PROCESSES": "3"},
    "train with a limit of cost without a price": {"TRAIN_MAX_COST": "5"},
    "train with a model that can be none": {"MODEL_BASE": "nonsense"},
    "config --check with a value that cannot be": {"TRAIN_RANK": "none"},
}
MISSING = {
    "train without a data set": {},
    "train with a data set that is not there": {"TRAIN_DATASET": "datasets/none/0123456789abcdef"},
    "infer without a LoRA": {},
    "infer with a LoRA that is not there": {"INFER_LORA": "runs/none/lora"},
    "infer with a LoRA file that is not there": {"INFER_LORA": "none.safetensors"},
    "infer with a champion that is not there": {"INFER_LORA": "registry:none"},
    "evaluate with a LoRA that is not there": {"EVALUATE_LORA": "runs/none/lora"},
}


@pytest.mark.parametrize(
    ("case", "variables", "code"),
    [(case, variables, ExitCode.BAD_CONFIGURATION) for case, variables in WRONG.items()]
    + [(case, variables, ExitCode.MISSING_INPUT) for case, variables in MISSING.items()],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_what_is_wrong_with_the_settings_is_told_before_the_libraries_are_loaded(
    case: str, variables: dict[str, str], code: ExitCode, tmp_path: Path
) -> None:
    job, _, rest = case.partition(" ")
    flags = [word for word in rest.split() if word.startswith("--")]
    program = (
        f"import sys; from service.__main__ import run; code = run({[job, *flags]});"
        f"print(int(code), [name for name in {MODELS} if name in sys.modules])"
    )
    ours = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60, cwd=tmp_path,
        env=ours | ELSEWHERE | {"PYTHONPATH": str(Path(service.__file__).parents[1])} | variables,
    )  # fmt: skip
    assert output.stdout.splitlines()[-1] == f"{int(code)} []", output.stderr
