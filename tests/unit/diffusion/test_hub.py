"""A model hub that refuses, fails, or says nothing: each ends as what it is, and what passes is waited for."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from huggingface_hub import constants, hf_hub_download
from structlog.testing import capture_logs
from tenacity import wait_none

from service.diffusion import hub
from service.diffusion.models import ModelFiles, loading
from service.exits import AccessDenied, MissingInput, ServiceError, StorageUnreachable
from tests.hubs import Fault, refusing, resetting
from tests.servers import answering, free_port

REVISION = "a" * 40
CONTENT = b"{}" * 50_000
FILES = ModelFiles("MODEL_BASE", "someone/model", {"revision": REVISION})


def silent(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.settimeout(20)
    handler.rfile.read(1)  # until whoever asks gives up


def whole(handler: BaseHTTPRequestHandler, sent: int | None = None) -> None:
    """A hub with the model, which has one file; only the first `sent` bytes of each answer arrive."""
    content = CONTENT
    if handler.path.startswith("/api/models/"):
        content = json.dumps({"id": FILES.name, "sha": REVISION, "siblings": []}).encode()
    first = int((handler.headers["Range"] or "bytes=0-").removeprefix("bytes=").partition("-")[0])
    handler.send_response(206 if first else 200)
    for name, value in {
        "Content-Length": str(len(content) - first),
        "Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}",
        "ETag": '"1234"',
        "X-Repo-Commit": REVISION,
        "Accept-Ranges": "bytes",
        "Connection": "close",
    }.items():
        handler.send_header(name, value)
    handler.end_headers()
    if handler.command == "GET":
        rest = content[first:]
        handler.wfile.write(rest if handler.path.startswith("/api/") else rest[:sent])
    handler.close_connection = True


def point_to(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT does when the hub's library is loaded."""
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    template = f"http://127.0.0.1:{port}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@contextmanager
def hub_that(answer: Fault, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with answering(answer) as port:
        point_to(port, monkeypatch)
        yield


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "PAUSE", wait_none())
    monkeypatch.setattr(hub, "ANSWER_SECONDS", 0.5)


def load() -> Path:
    with loading(FILES):
        return Path(hf_hub_download(FILES.name, "config.json", revision=REVISION))


@pytest.mark.parametrize(
    ("answer", "kind", "asked"),
    [
        (refusing(404, "RepoNotFound"), MissingInput, 1),
        (refusing(404, "RevisionNotFound"), MissingInput, 1),
        (refusing(404), MissingInput, 1),
        (refusing(403, "GatedRepo"), AccessDenied, 1),
        (refusing(403), AccessDenied, 1),
        (refusing(429), StorageUnreachable, 3),
        (refusing(500), StorageUnreachable, 3),
        (refusing(503), StorageUnreachable, 3),
        (resetting, StorageUnreachable, 3),
        (silent, StorageUnreachable, 3),
    ],
)
def test_what_the_hub_answers_is_what_the_job_ends_with(
    answer: Fault, kind: type[ServiceError], asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[str] = []

    def counted(handler: BaseHTTPRequestHandler) -> None:
        requests.append(handler.path)
        answer(handler)

    with (
        hub_that(counted, monkeypatch),
        capture_logs() as logs,
        pytest.raises(kind, match="MODEL_BASE=someone/model") as end,
    ):
        load()
    assert type(end.value) is kind
    assert "\n" not in str(end.value)
    assert [entry["event"] for entry in logs] == [
        "asking the model hub",
        *["the model hub does not answer, it is asked again"] * (asked > 1),  # said once, and at once
    ]
    # The library may ask the hub about itself first, once in a process.
    assert len([path for path in requests if "someone/model" in path]) == asked


def test_a_hub_that_cannot_be_reached_is_no_missing_model(monkeypatch: pytest.MonkeyPatch) -> None:
    point_to(free_port(), monkeypatch)
    with pytest.raises(StorageUnreachable, match="start the job again"):
        load()


def test_a_hub_that_recovers_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRY_SECONDS", "30")  # where patience counts, and not the number of attempts
    failures = [refusing(500), resetting, *[refusing(503)] * 4]
    with hub_that(lambda handler: (failures.pop(0) if failures else whole)(handler), monkeypatch):
        assert load().read_bytes() == CONTENT
    assert failures == []


def test_a_file_that_breaks_off_is_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)  # what is resumed are whole chunks
    with hub_that(lambda handler: whole(handler, 60_000), monkeypatch):
        assert load().read_bytes() == CONTENT


def test_a_file_that_never_comes_whole_is_no_missing_model(monkeypatch: pytest.MonkeyPatch) -> None:
    with hub_that(lambda handler: whole(handler, 0), monkeypatch), pytest.raises(StorageUnreachable):
        load()


def test_what_is_in_the_cache_is_loaded_without_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    with hub_that(whole, monkeypatch):
        first = load()
    point_to(free_port(), monkeypatch)
    assert load() == first
