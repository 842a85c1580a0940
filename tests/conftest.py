"""What all tests share: a clean environment, and places to keep artifacts in."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from service import stopping
from tests.servers import S3Server, moto_server, rclone_server
from tests.stores.ceph import ceph_server
from tests.stores.swift import swift_server

OURS = (
    "MODEL_",
    "DATA_PREP_",
    "TRAIN_",
    "INFER_",
    "EVALUATE_",
    "PROMOTE_",
    "RETRAIN_",
    "DOCTOR_",
    "ROLLBACK_",
    "RETIRE_",
    "CHAMPION_",
    "PREFETCH_",
    "PRUNE_",
    "DIFF_",
    "TRACE_",
    "REPRODUCE_",
    "AWS_",
    "S3_",
    "NOTIFY_",
)
OURS_EXACTLY = {
    "ARTIFACTS_URI",
    "RUN_ID",
    "WORK_DIR",
    "LOG_FORMAT",
    "LOG_LEVEL",
    "OUTCOME_FILE",
    "RETRY_SECONDS",
    "PRICE_PER_HOUR",
}
OF_THE_HOST = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"}

STORES = os.environ.get("SDLORA_STORES", "local,moto,rclone").split(",")
"""Kinds of stores that the tests of artifacts and of the chain are run on."""

# The hub's library reads it once, when it is loaded: in a fixture it would come too late.
os.environ["HF_HUB_OFFLINE"] = "1"

# A property is true or false, not fast or slow: a busy machine must not turn it into a failure.
settings.register_profile("any_machine", deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any_machine")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No variable of the developer's shell, or of another test, changes what a test sees, and none reaches for the cloud."""
    before = dict(os.environ)
    for name in os.environ:
        if name.startswith(OURS) or name in OURS_EXACTLY or name.upper() in OF_THE_HOST:
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    # What a test takes away stays away, unless it says so: nobody has to wait for it.
    monkeypatch.setenv("RETRY_SECONDS", "0")
    # A job that ran in this process has set how a request to stop ends it: here it would end all tests that follow.
    monkeypatch.setattr(stopping, "_end", None)
    # A developer's ~/.aws must not lend its credentials either.
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    yield
    # A job that ran in this process may have set some for good.
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def moto() -> Iterator[S3Server]:
    with moto_server() as server:
        yield server


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with rclone_server(tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.fixture(scope="session")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with ceph_server(tmp_path_factory.mktemp("stores") / "ceph") as server:
        yield server


@pytest.fixture(scope="session")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with swift_server(tmp_path_factory.mktemp("stores") / "swift") as server:
        yield server


@pytest.fixture(params=STORES)
def store_uri(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty place for artifacts, once of each kind."""
    if request.param == "local":
        return str(request.getfixturevalue("tmp_path") / "artifacts")
    server: S3Server = request.getfixturevalue(request.param)
    use(server, monkeypatch)
    return f"s3://{server.new_bucket()}/team/style"


def use(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes boto3 in this process speak to the server."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
