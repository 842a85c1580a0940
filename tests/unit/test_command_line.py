"""What a person or a pod sees of `sdlora` before any job runs."""

import errno
import json
import subprocess
import sys

import pytest

from service.__main__ import run
from service.exits import MEANINGS, AccessDenied, ExitCode, PassedOn, ServiceError, judge
from service.settings.catalogue import JOBS

HEAVY = ("torch", "boto3", "diffusers", "transformers", "datasets", "numpy", "pydantic")


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
