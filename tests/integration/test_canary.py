"""A secret of the environment is in nothing that a job leaves behind, however it ends."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from service.__main__ import run
from service.exits import ExitCode
from service.jobs import data_prep
from service.settings.data_prep import DataPrepSettings
from service.storage.opening import open_store
from tests.conftest import use
from tests.integration.canary import CANARIES, CANARY, sightings_in_folder, sightings_in_store
from tests.integration.chain import events_of
from tests.servers import S3Server, free_port, refusing_server

OURS = {"MODEL_BASE": "miniature", "DATA_PREP_SOURCE": "folder", "DATA_PREP_FOLDER": "miniature", "LOG_FORMAT": "json"}


class Leaving:
    """Runs a job in this process with the secrets in its environment, and keeps all that it says in the folder."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, job: str, *flags: str, **variables: str) -> int:
        places = {
            "ARTIFACTS_URI": str(self.folder / "artifacts"),
            "WORK_DIR": str(self.folder / "work"),
            "OUTCOME_FILE": str(self.folder / "outcome.json"),
            "AWS_MAX_ATTEMPTS": "1",
            "DOCTOR_MIN_DISK_GIB": "0.01",
        }
        for name, value in (OURS | places | CANARIES | variables).items():
            self._monkeypatch.setenv(name, value)
        self._capsys.readouterr()
        code = run([job, *flags])
        said = self._capsys.readouterr()
        (self.folder / "said").write_text(said.out + said.err)
        assert sightings_in_folder(self.folder) == []
        assert said.out + said.err
        return code

    def outcome(self) -> dict[str, Any]:
        outcome: dict[str, Any] = json.loads((self.folder / "outcome.json").read_text())
        return outcome


@pytest.fixture
def leaving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Leaving:
    return Leaving(tmp_path, monkeypatch, capsys)


def test_what_data_prep_and_train_leave_behind_holds_no_secret(trained: Path) -> None:
    assert list(trained.rglob("*.log"))
    assert sightings_in_folder(trained) == []


@pytest.mark.parametrize("job", ["config", "doctor"])
def test_what_looks_at_the_environment_shows_no_secret_of_it(
    job: str, leaving: Leaving, moto: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(moto, monkeypatch)
    uri = f"s3://{moto.new_bucket()}/x"
    endpoint = {"AWS_ENDPOINT_URL": moto.environment["AWS_ENDPOINT_URL"], "AWS_REGION": "us-east-1"}
    assert leaving(job, ARTIFACTS_URI=uri, **endpoint) == ExitCode.DONE
    use(moto, monkeypatch)
    assert sightings_in_store(open_store(uri)) == []


@pytest.mark.parametrize("job", ["data-prep", "train", "doctor"])
def test_a_refusal_shows_no_secret(job: str, leaving: Leaving) -> None:
    with refusing_server(403, "AccessDenied") as server:
        endpoint = {"AWS_ENDPOINT_URL": server.environment["AWS_ENDPOINT_URL"]}
        assert leaving(job, ARTIFACTS_URI="s3://bucket/x", **endpoint) == ExitCode.ACCESS_DENIED
    assert leaving.outcome()["exit_code"] == ExitCode.ACCESS_DENIED


@pytest.mark.parametrize("job", ["data-prep", "train", "doctor"])
@pytest.mark.parametrize(
    "endpoint",
    [
        "https://s3.example.com",  # through the proxy, which is not there
        f"http://someone:{CANARY}endpoint@127.0.0.1:{{port}}",
    ],
)
def test_a_server_that_cannot_be_reached_shows_no_secret(job: str, endpoint: str, leaving: Leaving) -> None:
    variables = {"ARTIFACTS_URI": "s3://bucket/x", "AWS_ENDPOINT_URL": endpoint.format(port=free_port())}
    assert leaving(job, **variables) in (ExitCode.STORAGE_UNREACHABLE, ExitCode.BAD_CONFIGURATION)
    assert leaving.outcome()["error"]


@pytest.mark.parametrize(
    "variables",
    [
        {"TRAIN_RANK": CANARIES["HF_TOKEN"], "DATA_PREP_LIMIT": CANARIES["HF_TOKEN"]},  # pasted into the wrong line
        {"ARTIFACTS_URI": f"s3://someone:{CANARY}uri@bucket/x"},
        {"MODEL_BASE": f"https://someone:{CANARY}uri@host/model"},
        {"DATA_PREP_URLS": f"s3://someone:{CANARY}uri@bucket/list.csv", "DATA_PREP_SOURCE": "urls"},
    ],
    ids=lambda variables: next(iter(variables)),
)
@pytest.mark.parametrize("job", ["data-prep", "train", "config", "doctor"])
def test_a_bad_setting_shows_no_secret(job: str, variables: dict[str, str], leaving: Leaving) -> None:
    code = leaving(job, **variables)
    if job in ("config", "doctor"):
        assert code == ExitCode.BAD_CONFIGURATION
    assert code != ExitCode.BUG


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_the_stack_trace_of_a_bug_shows_no_secret(
    log_format: str, leaving: Leaving, monkeypatch: pytest.MonkeyPatch
) -> None:
    def buggy(_: DataPrepSettings) -> None:
        secret = os.environ["AWS_SECRET_ACCESS_KEY"]
        raise KeyError(secret, {"token": [os.environ["HF_TOKEN"]]}, os.environ["https_proxy"])

    monkeypatch.setattr(data_prep, "data_prep", buggy)
    assert leaving("data-prep", LOG_FORMAT=log_format) == ExitCode.BUG
    said = (leaving.folder / "said").read_text()
    assert "Traceback" in said
    assert "***" in said
    if log_format == "json":
        assert len(events_of(said)) == 1


def test_the_warning_of_a_library_is_an_event_without_a_secret(leaving: Leaving) -> None:
    import logging

    leaving("config")  # sets up the logs
    assert logging.lastResort is not None
    record = logging.LogRecord("botocore", logging.WARNING, "", 0, "proxy %s", (CANARIES["https_proxy"],), None)
    logging.lastResort.handle(record)
    sys.stderr.flush()
    assert sightings_in_folder(leaving.folder) == []
