"""Values as env files, ConfigMaps, Secrets and people deliver them: taken as they are meant, or refused with what is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.__main__ import run
from service.exits import ExitCode
from service.settings.catalogue import all_settings

HEAVY = ("torch", "boto3", "diffusers", "transformers")


def complaint(capsys: pytest.CaptureFixture[str], job: str, *flags: str) -> str:
    """The one line with which a job refuses its settings."""
    assert run([job, *flags]) == ExitCode.BAD_CONFIGURATION
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    return str(next(line["error"] for line in lines if line["event"] == "failed"))


def effective(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert run(["config"]) == ExitCode.DONE
    shown: dict[str, Any] = json.loads(capsys.readouterr().out)
    return shown


@pytest.mark.parametrize(
    ("variable", "value", "meant"),
    [
        ("MODEL_BASE", '"miniature"', "miniature"),
        ("MODEL_BASE", "'owner/name'\n", "owner/name"),
        ("RUN_ID", "x\n", "x"),
        ("RUN_ID", "\ufeffx", "x"),
        ("RUN_ID", ' "x" \r\n', "x"),
        ("RUN_ID", "  ", "local"),
        ("WORK_DIR", " /tmp/x", "/tmp/x"),
        ("ARTIFACTS_URI", '"s3://bucket/prefix"\n', "s3://bucket/prefix"),
        ("LOG_FORMAT", "json ", "json"),
        ("TRAIN_RANK", '"8"', 8),
        ("TRAIN_TARGET_MODULES", '"to_q", "to_k"', ["to_q", "to_k"]),
        ("TRAIN_PROFILE", "recommended\n", "recommended"),
        ("DATA_PREP_STYLE", '"8-bit"\n', "8-bit"),
        ("INFER_PROMPTS", "a cat, asleep\na dog\n", ["a cat, asleep", "a dog"]),
        ("PRUNE_DRY_RUN", " false\n", False),
        ("S3_READ_TIMEOUT", '"5"', 5),
        ("DOCTOR_JOBS", " 'train' ", ["train"]),
    ],
)
def test_quotes_blanks_newlines_and_byte_order_marks_around_a_value_are_not_part_of_it(
    variable: str, value: str, meant: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, value)
    assert effective(capsys)[variable] == meant


def test_a_profile_in_quotes_sets_its_defaults_and_a_quoted_miniature_makes_the_family(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRAIN_PROFILE", '"recommended"')
    monkeypatch.setenv("MODEL_BASE", "'miniature'")
    shown = effective(capsys)
    assert (shown["TRAIN_RESOLUTION"], shown["MODEL_CLIP"]) == (512, "miniature")


@pytest.mark.parametrize(
    ("variable", "value", "shown"),
    [
        ("MODEL_BASE", '"miniature', "'\"' (U+0022)"),
        ("WORK_DIR", "/tmp/x'", '"\'" (U+0027)'),
        ("WORK_DIR", "/tmp/a\x1bb", "U+001B"),
        ("ARTIFACTS_URI", "s3://buc\nket/x", "U+000A"),
        ("MODEL_VAE", "owner/na\u200bme", "U+200B"),
        ("TRAIN_TARGET_MODULES", "to_q\x07,to_k", "U+0007"),
        ("DATA_PREP_FOLDER", "“/data”", "U+201C"),
        ("AWS_ACCESS_KEY_ID", "AK IA", "U+0020"),
        ("AWS_SECRET_ACCESS_KEY", "abc\ndef", "U+000A"),
        ("AWS_REGION", "eu-west-1;", "U+003B"),
        ("AWS_ENDPOINT_URL", 'http://"host"', "U+0022"),
    ],
)
def test_a_character_that_cannot_be_meant_is_shown(
    variable: str, value: str, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, value)
    for job in ("train", "data-prep") if not variable.startswith(("TRAIN", "DATA")) else ("config",):
        if (job, variable) != ("data-prep", "MODEL_VAE"):
            error = complaint(capsys, job)
            assert variable in error
            assert shown in error


@pytest.mark.parametrize("value", ["AKIDEXAMPLE\n", '"AKIDEXAMPLE"', " AKIDEXAMPLE", "\ufeffAKIDEXAMPLE\r\n"])
def test_credentials_are_used_without_what_a_secret_or_an_env_file_puts_around_them(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", value)
    monkeypatch.setenv("HF_TOKEN", value)
    assert run(["config", "--check"]) == ExitCode.DONE
    assert (os.environ["AWS_ACCESS_KEY_ID"], os.environ["HF_TOKEN"]) == ("AKIDEXAMPLE", "AKIDEXAMPLE")


def test_a_secret_that_is_refused_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "verysecret verysecret")
    assert "verysecret" not in complaint(capsys, "train")


PLACES = ["gs://bucket/x", "s3:/b", "S3://bucket", "s3:bucket", "https://bucket.s3.amazonaws.com", "file:///tmp/x",
          "azure://x", "s3://", "s3:///x", "s3://bucket/../x", "it's"]  # fmt: skip


@pytest.mark.parametrize("value", PLACES)
@pytest.mark.parametrize(
    "variable", ["ARTIFACTS_URI", "WORK_DIR", "OUTCOME_FILE", "DATA_PREP_FOLDER", "DATA_PREP_URLS"]
)
def test_what_is_no_place_is_refused_where_it_is_set_and_never_made_a_folder(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, value)
    assert variable in complaint(capsys, "config", "--check")
    if not variable.startswith("DATA"):
        monkeypatch.setenv(variable, value)  # an OUTCOME_FILE that is refused was taken out
        assert variable in complaint(capsys, "train")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "value", ["s3://bucket", "s3://bucket/", "s3://bucket/a/b", "./a", "/data/Bob's", "a:b/c", "C:/x"]
)
def test_what_is_a_place_is_taken(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if value == "a:b/c":  # one letter before the colon is a drive, or a folder
        pass
    monkeypatch.setenv("ARTIFACTS_URI", value)
    assert run(["config", "--check"]) == ExitCode.DONE


@pytest.mark.parametrize(
    ("variable", "value", "jobs"),
    [
        ("ARTIFACTS_URI", "gs://bucket/x", ["data-prep", "train", "infer", "evaluate", "demo", "prune"]),
        ("RUN_ID", "a b", ["data-prep", "train", "infer", "evaluate", "demo", "prune"]),
        ("MODEL_BASE", "nonsense", ["data-prep", "train", "infer", "evaluate"]),
    ],
)
def test_a_complaint_about_a_setting_does_not_wait_for_torch(variable: str, value: str, jobs: list[str]) -> None:
    program = (
        f"import sys; from service.__main__ import run; codes = {{run([job]) for job in {jobs}}};"
        f"print(*map(int, codes), [name for name in {HEAVY} if name in sys.modules])"
    )
    environment = os.environ | {variable: value}
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60, env=environment
    )
    assert output.stdout.splitlines()[-1] == "78 []", output.stderr
    assert output.stderr.count(variable) >= len(jobs)


def test_a_style_that_is_empty_on_purpose_stays_empty(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from service.__main__ import read_settings

    assert read_settings(all_settings()["data-prep"], ["--data-prep-style", ""]).model_dump()["style"] == ""
    monkeypatch.setenv("DATA_PREP_STYLE", "")
    assert effective(capsys)["DATA_PREP_STYLE"] == ""


def test_of_a_setting_that_cannot_be_empty_the_default_is_taken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RETRY_SECONDS")
    usual = effective(capsys)
    for variable in usual:
        monkeypatch.setenv(variable, "")
    assert effective(capsys) == usual | {"DATA_PREP_STYLE": ""}


@pytest.mark.parametrize(
    ("variable", "value", "bound"),
    [
        ("TRAIN_LEARNING_RATE", "inf", "finite"),
        ("TRAIN_WEIGHT_DECAY", "nan", "finite"),
        ("INFER_GUIDANCE", "Infinity", "finite"),
        ("DATA_PREP_MAX_ASPECT", "inf", "finite"),
        ("DOCTOR_MIN_DISK_GIB", "inf", "finite"),
        ("S3_READ_TIMEOUT", "nan", "finite"),
        ("RETRY_SECONDS", "inf", "finite"),
        ("TRAIN_SEED", str(2**63), str(2**63 - 1)),
        ("INFER_SEED", str(2**63), str(2**63 - 1)),
        ("EVALUATE_SEED", str(10**30), str(2**63 - 1)),
        ("INFER_SEED", str(2**63 - 2), "INFER_VARIATIONS"),
        ("EVALUATE_SEED", str(2**63 - 2), "EVALUATE_VARIATIONS"),
        ("TRAIN_MAX_STEPS", str(10**19), str(2**63 - 1)),
        ("PRUNE_KEEP_LAST", str(10**19), str(2**63 - 1)),
        ("INFER_RESOLUTION", "8000000", "16384"),
        ("EVALUATE_RESOLUTION", "8000000", "16384"),
        ("TRAIN_RESOLUTION", "8000000", "16384"),
        ("DATA_PREP_SIDE", "8000000", "16384"),
        ("INFER_STEPS", "1001", "1000"),
        ("EVALUATE_STEPS", "1001", "1000"),
        ("TRAIN_SAMPLE_STEPS", "1001", "1000"),
        ("INFER_VARIATIONS", str(10**12), "100000"),
        ("TRAIN_PROCESSES", str(10**9), "10000"),
        ("TRAIN_NODES", str(10**9), "10000"),
        ("TRAIN_PEER_TIMEOUT", str(10**15), "31536000"),
        ("TRAIN_STATUS_SECONDS", "1e300", "31536000"),
        ("TRAIN_STALL_SECONDS", str(10**15), "31536000"),
        ("DATA_PREP_FETCH_TIMEOUT", "1e12", "31536000"),
    ],
)
def test_a_number_that_is_too_large_or_not_finite_is_refused_with_the_bound(
    variable: str, value: str, bound: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, value)
    error = complaint(capsys, "config", "--check")
    assert variable in error
    assert bound in error


def test_the_largest_seed_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFER_SEED", str(2**63 - 3))  # of three variations
    monkeypatch.setenv("TRAIN_SEED", str(2**63 - 1))
    assert run(["config", "--check"]) == ExitCode.DONE


LINKS = {
    "TRAIN_SERVICE_HOST": "10.0.0.1",
    "TRAIN_SERVICE_PORT": "80",
    "TRAIN_SERVICE_PORT_HTTP": "80",
    "TRAIN_PORT": "tcp://10.0.0.1:80",
    "INFER_PORT_80_TCP": "tcp://10.0.0.1:80",
    "INFER_PORT_80_TCP_PROTO": "tcp",
    "INFER_PORT_80_TCP_PORT": "80",
    "INFER_PORT_80_TCP_ADDR": "10.0.0.1",
    "MODEL_SERVER_PORT_53_UDP": "udp://10.0.0.1:53",
    "S3_PORT": "tcp://10.0.0.1:9000",
}


@pytest.mark.parametrize("job", ["config", "infer"])
def test_what_kubernetes_tells_of_its_services_is_ignored_with_one_line(
    job: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ARTIFACTS_URI", str(tmp_path))
    for name, value in LINKS.items():
        monkeypatch.setenv(name, value)
    assert run([job]) == (ExitCode.DONE if job == "config" else ExitCode.MISSING_INPUT)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["variables"] for line in lines if "service links" in line["event"]] == [sorted(LINKS)]


def test_a_port_that_is_no_address_of_a_service_is_still_a_misspelt_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRAIN_PORT", "29500")
    assert "TRAIN_PORT is no setting" in complaint(capsys, "train")


@pytest.mark.parametrize(
    ("base", "vae"),
    [("miniature", "stabilityai/sd-vae-ft-mse"), ("stable-diffusion-v1-5/stable-diffusion-v1-5", "miniature")],
)
def test_a_miniature_beside_a_real_model_that_does_not_fit_is_refused_with_the_pair(
    base: str, vae: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MODEL_BASE", base)
    monkeypatch.setenv("MODEL_VAE", vae)
    for job in ("config", "train", "infer", "evaluate"):
        error = complaint(capsys, job)
        assert f"MODEL_BASE={base}" in error
        assert f"MODEL_VAE={vae}" in error


@pytest.mark.parametrize("vae", ["base", "miniature", "./vae", "s3://bucket/vae"])
def test_a_miniature_with_an_autoencoder_that_may_fit_is_taken(vae: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_BASE", "miniature")
    monkeypatch.setenv("MODEL_VAE", vae)
    assert run(["config", "--check"]) == ExitCode.DONE


@pytest.mark.parametrize(
    "value", ["https://someone:verysecret@host/model", '"gs://key:verysecret@bucket', "verysecret"]
)
def test_what_is_wrong_with_an_address_is_said_without_its_password(
    value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if value == "verysecret":
        monkeypatch.setenv("SOME_TOKEN", value)
    for variable in ("MODEL_BASE", "ARTIFACTS_URI" if "://" in value else "MODEL_VAE"):
        monkeypatch.setenv(variable, value)
    error = complaint(capsys, "train")
    assert "MODEL_BASE" in error
    assert "verysecret" not in error
