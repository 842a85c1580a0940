"""`sdlora doctor` finds what would fail, names it with what to do, and leaves nothing behind."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from service import miniature
from service.__main__ import run
from service.artifacts.history import History, append, digest_of
from service.artifacts.kinds.registry import Entry
from service.artifacts.publishing import publish
from service.checks.machine import check_shared_memory
from service.checks.storage import storage_checks
from service.exits import ExitCode
from service.storage.opening import open_store
from service.storage.s3.store import S3Store
from tests.conftest import use
from tests.servers import S3Server, answering, environment_for, free_port, refusing_server

STORAGE = ("write", "read", "missing object", "list", "conditional write", "multipart", "delete")
Doctor = Callable[..., tuple[int, dict[str, dict[str, Any]]]]


@pytest.fixture
def doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Doctor:
    """Runs the job on the miniature; gives the exit code, and the findings by the name of their check."""

    def examine(**variables: str) -> tuple[int, dict[str, dict[str, Any]]]:
        known = {
            "MODEL_BASE": "miniature",
            "ARTIFACTS_URI": str(tmp_path / "artifacts"),
            "WORK_DIR": str(tmp_path / "work"),
            "DOCTOR_MIN_DISK_GIB": "0.01",
            "DATA_PREP_FOLDER": "miniature",
            "AWS_MAX_ATTEMPTS": "2",
        }
        for name, value in (known | variables).items():
            monkeypatch.setenv(name, value)
        code = run(["doctor"])
        events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        return code, {event["check"]: event for event in events if event["event"] == "check"}

    return examine


def statuses(findings: dict[str, dict[str, Any]], *checks: str) -> set[str]:
    return {findings[check]["status"] for check in checks}


def test_where_all_is_well_every_check_says_so_and_nothing_is_left_behind(doctor: Doctor, tmp_path: Path) -> None:
    code, findings = doctor()
    assert code == ExitCode.DONE
    assert not [finding for finding in findings.values() if finding["status"] == "failure"]
    assert {"variables", "settings train", "disk", "shared memory", "storage write", "model base", "GPU"} <= set(
        findings
    )
    assert list((tmp_path / "artifacts").iterdir()) == []
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.parametrize(("name", "conditional"), [("moto", "ok"), ("rclone", "warning")])
def test_of_a_bucket_it_tells_whether_it_has_conditional_writes_and_leaves_it_empty(
    name: str, conditional: str, doctor: Doctor, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    server: S3Server = request.getfixturevalue(name)
    uri = f"s3://{server.new_bucket()}/team"
    code, findings = doctor(**server.environment, ARTIFACTS_URI=uri)
    assert code == ExitCode.DONE
    assert statuses(findings, "storage", *(f"storage {part}" for part in STORAGE if "cond" not in part)) == {"ok"}
    assert findings["storage conditional write"]["status"] == conditional
    use(server, monkeypatch)
    assert list(open_store(uri).list("")) == []
    store = open_store(uri)
    assert isinstance(store, S3Store)
    assert list(store.unfinished(datetime.now(UTC) + timedelta(days=1))) == []


def test_a_doctor_that_is_stopped_on_the_way_cleans_up_as_well(moto: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    use(moto, monkeypatch)
    uri = f"s3://{moto.new_bucket()}"
    checks = storage_checks(uri)
    assert [next(checks).check for _ in range(3)][-1] == "storage read"
    assert len(list(open_store(uri).list(""))) == 1
    checks.close()  # type: ignore[attr-defined]
    assert list(open_store(uri).list("")) == []


def test_refused_credentials_end_in_77_and_hide_no_other_check(doctor: Doctor) -> None:
    with refusing_server(403, "AccessDenied") as server:
        code, findings = doctor(**server.environment, ARTIFACTS_URI="s3://bucket/x")
    assert code == ExitCode.ACCESS_DENIED
    assert statuses(findings, *(f"storage {part}" for part in STORAGE)) == {"failure"}
    assert findings["storage write"]["code"] == ExitCode.ACCESS_DENIED
    assert "AWS_SECRET_ACCESS_KEY" in findings["storage write"]["advice"]
    assert statuses(findings, "model base", "disk") == {"ok"}
    assert "GPU" in findings


def test_an_unreachable_server_ends_in_69_and_the_other_checks_go_on(doctor: Doctor) -> None:
    code, findings = doctor(**environment_for(free_port()), ARTIFACTS_URI="s3://bucket/x")
    assert code == ExitCode.STORAGE_UNREACHABLE
    assert "AWS_ENDPOINT_URL" in findings["storage"]["advice"]
    assert statuses(findings, *(f"storage {part}" for part in STORAGE)) == {"warning"}
    assert statuses(findings, "model base", "disk") == {"ok"}


def test_a_missing_bucket_ends_in_66(doctor: Doctor, rclone: S3Server) -> None:
    code, findings = doctor(**rclone.environment, ARTIFACTS_URI="s3://no-such-bucket/x")
    assert code == ExitCode.MISSING_INPUT
    assert "no-such-bucket" in findings["storage"]["fact"]
    assert "create it" in findings["storage"]["advice"]


def test_without_credentials_it_says_which_ones_are_missing(doctor: Doctor, moto: S3Server) -> None:
    environment = {name: value for name, value in moto.environment.items() if "KEY" not in name}
    code, findings = doctor(**environment, ARTIFACTS_URI=f"s3://{moto.new_bucket()}")
    assert code == ExitCode.ACCESS_DENIED
    assert "AWS_ACCESS_KEY_ID" in findings["storage"]["advice"]


def test_a_read_only_folder_ends_in_74(doctor: Doctor, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    assert os.system(f"mount -t tmpfs -o ro tmpfs {closed}") == 0
    try:
        code, findings = doctor(ARTIFACTS_URI=str(closed / "artifacts"))
        assert code == ExitCode.INPUT_OUTPUT
        assert statuses(findings, "storage write", "storage conditional write") == {"failure"}
        assert "ARTIFACTS_URI" in findings["storage write"]["advice"]
        code, findings = doctor(WORK_DIR=str(closed / "work"), ARTIFACTS_URI=str(tmp_path / "artifacts"))
        assert code == ExitCode.INPUT_OUTPUT
        assert "WORK_DIR" in findings["disk"]["advice"]
    finally:
        os.system(f"umount {closed}")


def test_a_misspelt_variable_ends_in_78_and_the_right_one_is_named(doctor: Doctor) -> None:
    code, findings = doctor(TRAIN_MAX_STEP="10")
    assert code == ExitCode.BAD_CONFIGURATION
    assert "TRAIN_MAX_STEPS" in findings["variables"]["fact"]
    assert statuses(findings, "settings train", "model base", "storage write") == {"ok"}


def test_every_job_with_a_bad_value_is_named_even_if_doctor_reads_the_value_too(doctor: Doctor) -> None:
    code, findings = doctor(TRAIN_RANK="0", DATA_PREP_LIMIT="none", LOG_FORMAT="yaml")
    assert code == ExitCode.BAD_CONFIGURATION
    assert "TRAIN_RANK='0'" in findings["settings train"]["fact"]
    assert "DATA_PREP_LIMIT='none'" in findings["settings data-prep"]["fact"]
    assert "LOG_FORMAT='yaml'" in findings["settings infer"]["fact"]
    assert statuses(findings, "storage write", "model base") == {"ok"}


@pytest.mark.parametrize(
    ("word", "module", "remedy"), [("heic", "pi_heif", "sdlora[heic]"), ("avif", "PIL._avif", "built with AVIF")]
)
def test_a_format_whose_decoder_is_not_installed_is_named_with_the_way_to_get_it(
    word: str,
    module: str,
    remedy: str,
    doctor: Doctor,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, findings = doctor(DATA_PREP_EXTRA_FORMATS=word)
    assert (code, findings["settings data-prep"]["status"]) == (ExitCode.DONE, "ok")
    monkeypatch.setitem(sys.modules, module, None)
    code, findings = doctor(DATA_PREP_EXTRA_FORMATS=word)
    assert code == ExitCode.BAD_CONFIGURATION
    assert f"DATA_PREP_EXTRA_FORMATS='{word}': the decoder of {word}" in findings["settings data-prep"]["fact"]
    for command in (["config", "--check"], ["data-prep"]):
        assert run(command) == ExitCode.BAD_CONFIGURATION
        assert remedy in capsys.readouterr().err


def test_too_little_disk_and_a_missing_gpu_that_is_required_are_failures(doctor: Doctor) -> None:
    code, findings = doctor(DOCTOR_MIN_DISK_GIB="1e9", DOCTOR_REQUIRE_GPU="true")
    assert code == ExitCode.INPUT_OUTPUT  # the first of the two
    assert statuses(findings, "disk", "GPU") == {"failure"}
    assert findings["GPU"]["code"] == ExitCode.BAD_CONFIGURATION


def test_small_shared_memory_is_a_warning_that_says_how_to_enlarge_it(tmp_path: Path) -> None:
    finding = check_shared_memory(tmp_path, least=1 << 60)
    assert (finding.status, "--shm-size" in finding.advice) == ("warning", True)


def test_a_clock_that_is_off_is_told_before_the_server_refuses_for_it(doctor: Doctor) -> None:
    with server_at(datetime.now(UTC) - timedelta(minutes=20)) as environment:
        code, findings = doctor(**environment, ARTIFACTS_URI="s3://bucket/x")
    assert code == ExitCode.ACCESS_DENIED
    assert "s off that of" in findings["storage"]["fact"]
    with server_at(datetime.now(UTC) + timedelta(minutes=5)) as environment:
        _, findings = doctor(**environment, ARTIFACTS_URI="s3://bucket/x")
    assert (findings["storage"]["status"], findings["storage"]["advice"]) == ("warning", "start NTP")


def test_models_are_found_in_folders_and_mirrors_and_damage_is_told_without_loading_one(
    doctor: Doctor, tmp_path: Path, moto: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(moto, monkeypatch)
    mirror = f"s3://{moto.new_bucket()}/models"
    publish(open_store(mirror), miniature.CLIP, kind="model", path="clip")
    (tmp_path / "empty").mkdir()
    models = {
        "MODEL_VAE": str(tmp_path / "empty"),
        "MODEL_CAPTIONER": str(tmp_path / "none"),
        "MODEL_CLIP": f"{mirror}/clip",
    }
    code, findings = doctor(**models)
    assert code == ExitCode.MISSING_INPUT  # the captioner's, which comes first
    assert findings["model clip"]["status"] == "ok"
    assert (findings["model vae"]["code"], findings["model captioner"]["code"]) == (65, 66)
    open_store(mirror).put("clip/model.safetensors", b"cut off")
    assert "1 of" in doctor(**models)[1]["model clip"]["fact"]
    assert doctor(**models, DOCTOR_JOBS="train")[1].keys().isdisjoint({"model clip", "model captioner"})


@pytest.mark.parametrize(
    ("index", "code", "told"),
    [
        ('{"_class_name": "StableDiffusionXLPipeline"}', ExitCode.BAD_CONFIGURATION, "is a StableDiffusionXLPipeline"),
        ('{"_class_name": ', ExitCode.BAD_DATA, "model_index.json holds no JSON"),
    ],
)
def test_a_base_model_of_another_family_or_without_a_readable_index_is_told(
    index: str, code: ExitCode, told: str, doctor: Doctor, tmp_path: Path
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "model_index.json").write_text(index)
    ended, findings = doctor(MODEL_BASE=str(tmp_path), MODEL_VAE="base", DOCTOR_JOBS="train")
    assert ended == code
    assert told in findings["model base"]["fact"]


def test_offline_a_model_of_the_hub_must_be_in_the_cache(
    doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    named = {"MODEL_CLIP": "someone/clip", "MODEL_CLIP_REVISION": "a" * 40}
    code, findings = doctor(**named)
    assert code == ExitCode.MISSING_INPUT
    assert "HF_HUB_OFFLINE" in findings["model clip"]["fact"]
    snapshot = tmp_path / "hub" / "models--someone--clip" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    for file in ("config.json", "model.safetensors"):
        (snapshot / file).write_bytes(b"{}")
    assert doctor(**named)[0] == ExitCode.DONE


def test_online_the_hub_is_asked_for_the_revision(
    doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with hub_with("someone/clip", "a" * 40) as address:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        there = doctor(MODEL_CLIP="someone/clip", MODEL_CLIP_REVISION="a" * 40)
        other = doctor(MODEL_CLIP="someone/clip", MODEL_CLIP_REVISION="b" * 40)
    gone = doctor(MODEL_CLIP="someone/clip", MODEL_CLIP_REVISION="a" * 40)
    assert there[0] == ExitCode.DONE
    assert (other[0], "MODEL_CLIP_REVISION" in other[1]["model clip"]["advice"]) == (ExitCode.MISSING_INPUT, True)
    assert (gone[0], "does not answer" in gone[1]["model clip"]["fact"]) == (ExitCode.STORAGE_UNREACHABLE, True)


def test_on_a_terminal_the_findings_are_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name, value in {
        "MODEL_BASE": "miniature", "LOG_FORMAT": "console", "ARTIFACTS_URI": str(tmp_path / "artifacts"),
        "WORK_DIR": str(tmp_path / "work"), "TRAIN_RANK": "0", "COLUMNS": "140", "DOCTOR_MIN_DISK_GIB": "0.01",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    assert run(["doctor"]) == ExitCode.BAD_CONFIGURATION
    shown = capsys.readouterr().out
    assert "what to do" in shown
    assert "settings train" in shown
    assert "TRAIN_RANK='0'" in shown
    assert "{" not in shown


@contextmanager
def server_at(moment: datetime) -> Iterator[dict[str, str]]:
    """A store that knows nothing but the time, and that wrongly."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response_only(200)
        handler.send_header("Date", format_datetime(moment, usegmt=True))
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with answering(answer) as port:
        yield environment_for(port)


@contextmanager
def hub_with(name: str, revision: str) -> Iterator[str]:
    """A model hub with one model in one revision."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        there = handler.path.startswith(f"/api/models/{name}/revision/{revision}")
        body = json.dumps({"id": name, "sha": revision, "siblings": []} if there else {"error": "no"}).encode()
        handler.send_response(200 if there else 404)
        if not there:
            handler.send_header("X-Error-Code", "RevisionNotFound")
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    with answering(answer) as port:
        yield f"http://127.0.0.1:{port}"


def test_settings_that_are_refused_hide_no_other_check_and_nothing_else_is_looked_at_in_their_place(
    doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, findings = doctor(ARTIFACTS_URI="gs://bucket/x", AWS_SECRET_ACCESS_KEY="a secret", MODEL_CLIP="nonsense")
    assert code == ExitCode.BAD_CONFIGURATION
    assert statuses(findings, "settings train", "settings evaluate", "credentials") == {"failure"}
    assert "ARTIFACTS_URI" in findings["settings train"]["fact"]
    assert "U+0020" in findings["credentials"]["fact"]
    assert not any(name.startswith("storage") or name == "model clip" for name in findings)
    assert statuses(findings, "disk", "model base", "variables") == {"ok"}
    assert list(tmp_path.iterdir()) == [tmp_path / "work"]


def test_a_pair_of_models_that_does_not_fit_is_named_and_hides_no_other_check(doctor: Doctor) -> None:
    code, findings = doctor(MODEL_VAE="stabilityai/sd-vae-ft-mse")
    assert code == ExitCode.BAD_CONFIGURATION
    assert "MODEL_VAE=stabilityai/sd-vae-ft-mse" in findings["settings train"]["fact"]
    assert statuses(findings, "settings data-prep", "model base", "storage write") == {"ok"}


def test_service_links_of_kubernetes_are_no_misspelt_settings(doctor: Doctor) -> None:
    code, findings = doctor(TRAIN_SERVICE_HOST="10.0.0.1", TRAIN_PORT="tcp://10.0.0.1:80")
    assert (code, findings["variables"]["status"]) == (ExitCode.DONE, "ok")


def test_for_retrain_it_looks_at_all_that_retrain_runs_and_at_the_registry(doctor: Doctor, tmp_path: Path) -> None:
    code, findings = doctor(DOCTOR_JOBS="retrain")
    assert code == ExitCode.BAD_CONFIGURATION
    assert "PROMOTE_MODEL" in findings["registry"]["fact"]
    code, findings = doctor(DOCTOR_JOBS="retrain", PROMOTE_MODEL="pixel-art")
    assert code == ExitCode.DONE
    assert findings["registry"]["fact"] == "pixel-art has no LoRA as its champion"
    assert {"settings data-prep", "settings train", "settings evaluate", "settings retrain", "model clip"} <= set(
        findings
    )
    assert "settings infer" not in findings

    lora = {"lora": "runs/one/lora", "version": "a", "promotion": 1}
    append(open_store(str(tmp_path / "artifacts")), History("pixel-art", (), (digest_of(b""),)), Entry(**lora))
    assert "runs/one/lora" in doctor(DOCTOR_JOBS="retrain")[1]["registry"]["fact"]
    [entry] = (tmp_path / "artifacts" / "registry" / "pixel-art").glob("*.json")
    entry.rename(entry.with_name("00000002-0123456789abcdef.json"))
    code, findings = doctor(DOCTOR_JOBS="retrain")
    assert (code, findings["registry"]["status"]) == (ExitCode.BAD_DATA, "failure")
