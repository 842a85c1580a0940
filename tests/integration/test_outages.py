"""A store that goes away and comes back: what asks for it waits, told once, goes on, and stops as soon as it is told to."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.artifacts.fetching import verify
from service.artifacts.publishing import publish
from service.exits import ExitCode
from service.settings.demo import DEMO_VARIABLES
from service.storage.opening import open_store
from service.storage.s3.upload import PART
from tests.conftest import use
from tests.integration.chain import SMALL, finish, start
from tests.servers import environment_for, free_port, rclone_server

TOLD = "does not answer, it is asked again"
FILES = 60


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """Where the server is when it is there. The patience is long enough."""
    monkeypatch.setenv("RETRY_SECONDS", "120")
    return free_port()


def events(logs: list[dict[str, str]]) -> list[str]:
    return [entry["event"] for entry in logs if "answer" in entry["event"]]


def test_whatever_is_asked_of_a_store_that_is_away_for_seconds_is_done_when_it_is_back(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with rclone_server(tmp_path / "buckets", port) as server:
        use(server, monkeypatch)
        bucket = server.new_bucket()
        store = open_store(f"s3://{bucket}/team")
        store.put("before", b"1")
        store.put("gone", b"1")
    large = tmp_path / "large"
    large.write_bytes(b"12345678" * (PART // 8) + b"rest")
    actions: list[Callable[[], object]] = [
        lambda: store.put("small", b"2"),
        lambda: store.put("large", large),
        lambda: store.get("before"),
        lambda: store.download("before", tmp_path / "copy"),
        lambda: list(store.list("before")),
        lambda: store.put_if_absent("new", b"3"),
        lambda: store.delete("gone"),
    ]
    with capture_logs() as logs, ThreadPoolExecutor(len(actions)) as threads:
        asked = [threads.submit(action) for action in actions]
        while not any(TOLD in entry["event"] for entry in logs):
            time.sleep(0.05)
        assert not any(future.done() for future in asked)
        with rclone_server(tmp_path / "buckets", port):
            for future in asked:
                future.result(60)
            assert {entry.key for entry in store.list("")} == {"before", "small", "large", "new"}
            store.download("large", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == large.read_bytes()
    assert events(logs) == [f"bucket '{bucket}' {TOLD}", f"bucket '{bucket}' answers again"]


def test_a_publish_whose_store_goes_away_in_its_middle_goes_on(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made").mkdir()
    for number in range(FILES):
        (tmp_path / f"made/{number}").write_bytes(b"%d" % number * 100_000)
    with ThreadPoolExecutor(1) as threads:
        with rclone_server(tmp_path / "buckets", port) as server:
            use(server, monkeypatch)
            bucket = server.new_bucket()
            store = open_store(f"s3://{bucket}")
            published = threads.submit(publish, store, tmp_path / "made", kind="lora", path="runs/local/lora")
            while len(list((tmp_path / "buckets" / bucket).rglob("lora/*"))) < FILES // 4:
                time.sleep(0.002)
        assert not published.done()
        time.sleep(2)
        with rclone_server(tmp_path / "buckets", port):
            assert len(published.result(60).manifest.files) == FILES
            assert verify(store, "runs/local/lora").version == published.result().manifest.version


def test_a_job_whose_store_comes_late_does_its_work(port: int, tmp_path: Path) -> None:
    (tmp_path / "buckets/late").mkdir(parents=True)
    variables = DEMO_VARIABLES | SMALL | environment_for(port) | {"ARTIFACTS_URI": "s3://late", "DATA_PREP_LIMIT": "12"}
    running = start("data-prep", tmp_path, variables)
    assert running.wait_for(lambda _, line: TOLD in line), running.said()
    with rclone_server(tmp_path / "buckets", port):
        assert running.wait().code == ExitCode.DONE, running.said()
        assert running.said().count(TOLD) == 1
        assert finish("data-prep", tmp_path, variables).last("already prepared")


@pytest.mark.parametrize("job", ["data-prep", "train", "infer"])
def test_told_to_stop_while_it_waits_for_its_store_a_job_ends_at_once_with_75(
    job: str, port: int, tmp_path: Path
) -> None:
    variables = DEMO_VARIABLES | SMALL | environment_for(port) | {"ARTIFACTS_URI": "s3://away"}
    running = start(job, tmp_path, variables)
    assert running.wait_for(lambda _, line: TOLD in line), running.said()
    began = time.monotonic()
    running.process.terminate()
    end = running.wait()
    assert time.monotonic() - began < 3
    assert end.code == ExitCode.STOPPED, end.events
    assert end.last("stopped")["exit_code"] == ExitCode.STOPPED
