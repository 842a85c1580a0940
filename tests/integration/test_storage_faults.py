"""Each thing that can go wrong between the service and its store, by itself: the result is right, or the error is."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from service.artifacts.fetching import fetch, verify
from service.artifacts.publishing import exists, publish
from service.artifacts.retention import carry_out, plan_sweep
from service.artifacts.runs import Run
from service.exits import AccessDenied, ExitCode, StorageUnreachable, judge
from service.storage.interface import NotFound, ObjectStore
from service.storage.opening import open_store
from service.storage.s3 import connection
from service.storage.s3.store import S3Store
from service.training.checkpoints import newest_checkpoint
from tests.conftest import use
from tests.faults import LASTING, Fault, Faults, Request, faulty
from tests.servers import KEY, SECRET, S3Server

PASSING = [fault for fault in Fault if fault not in LASTING]
PATH = "runs/local/lora"
FILES = {"weights": os.urandom(2 << 20), "state.json": b"{}", "empty": b""}
PART = 16 << 20

Kind = Callable[[Request], bool]


def is_put(request: Request) -> bool:
    return request.method == "PUT"


def is_get(request: Request) -> bool:
    return request.method == "GET"


def is_part(request: Request) -> bool:
    return "partNumber" in request.query


KINDS: dict[str, Kind] = {
    "the look for a manifest": lambda request: is_get(request) and request.path.endswith("MANIFEST.json"),
    "the claim": lambda request: is_put(request) and "/WRITER-" in request.path,
    "the listing": lambda request: "list-type" in request.query,
    "a large file": lambda request: is_put(request) and request.path.endswith("/weights"),
    "a small file": lambda request: is_put(request) and request.path.endswith("/state.json"),
    "the manifest": lambda request: is_put(request) and request.path.endswith("MANIFEST.json"),
    "the release": lambda request: request.method == "DELETE",
}


@pytest.fixture(params=["moto", "rclone"])
def server(request: pytest.FixtureRequest) -> S3Server:
    server: S3Server = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def faults(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    with faulty(server) as faults:
        use(faults.server, monkeypatch)
        hurry(monkeypatch)
        yield faults


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses after a SlowDown as short as after anything else."""
    monkeypatch.setattr(connection, "FIRST_PAUSE_THROTTLED", connection.FIRST_PAUSE)


@pytest.fixture
def impatient(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A time-out that suits loopback for the tests of stalls; for the others a busy machine must not look like one."""
    if "STALL" in str(request.getfixturevalue("fault")):
        monkeypatch.setenv("S3_READ_TIMEOUT", "0.5")


@pytest.fixture
def bucket(faults: Faults) -> str:
    return faults.server.new_bucket()


@pytest.fixture
def store(bucket: str) -> ObjectStore:
    """The store behind the faults."""
    return open_store(f"s3://{bucket}/team")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "made"
    made.mkdir()
    for name, content in FILES.items():
        (made / name).write_bytes(content)
    return made


def contents_of(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def file_of(folder: Path, size: int) -> Path:
    path = folder / "large"
    path.write_bytes(os.urandom(size))
    return path


def parts_sent(faults: Faults) -> int:
    return sum(map(is_part, faults.requests))


# What goes away


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: fault.value)
def test_a_fault_of_any_request_of_a_publish_that_goes_away_does_no_harm(
    fault: Fault, faults: Faults, store: ObjectStore, folder: Path, tmp_path: Path
) -> None:
    for kind in KINDS.values():
        faults.plan(fault, kind)
    publish(store, folder, kind="lora", path=PATH)
    assert faults.happened[fault] >= 1
    faults.clear()
    assert contents_of(fetch(store, PATH, tmp_path / "work")) == FILES
    assert {entry.key for entry in store.list("")} == {f"{PATH}/{name}" for name in [*FILES, "MANIFEST.json"]}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fault", [fault for fault in PASSING if "body reaches the server" not in fault.value],
                         ids=lambda fault: fault.value)  # fmt: skip
def test_a_fault_of_any_request_of_a_fetch_that_goes_away_does_no_harm(
    fault: Fault, faults: Faults, store: ObjectStore, folder: Path, tmp_path: Path
) -> None:
    publish(store, folder, kind="lora", path=PATH)
    for kind in (KINDS["the look for a manifest"], KINDS["the listing"], lambda request: "weights" in request.path):
        faults.plan(fault, kind)
    assert contents_of(fetch(store, PATH, tmp_path / "work")) == FILES


def test_a_manifest_whose_answer_was_lost_is_known_as_our_own(faults: Faults, store: ObjectStore, folder: Path) -> None:
    # The repetition is refused with 412 where conditions are honoured, as if another writer had been faster.
    faults.plan(Fault.RESET_AFTER, KINDS["the manifest"])
    publish(store, folder, kind="lora", path=PATH)
    assert len([request for request in faults.requests if KINDS["the manifest"](request)]) == 2
    assert verify(store, PATH)


def test_a_manifest_of_another_writer_that_came_first_is_not_taken_for_our_own(
    faults: Faults, store: ObjectStore
) -> None:
    store.put("pointer", b"theirs")
    for fault in (Fault.RESET_AFTER, Fault.CONFLICT, Fault.ERROR_AFTER):
        faults.plan(fault)
        assert not store.put_if_absent("pointer", b"ours")
    assert store.get("pointer") == b"theirs"


# What stays


@pytest.mark.parametrize("fault", sorted(LASTING, key=lambda fault: fault.value), ids=lambda fault: fault.value)
@pytest.mark.parametrize("kind", KINDS)
def test_refused_credentials_end_a_publish_with_77_and_publish_nothing_half(
    fault: Fault, kind: str, faults: Faults, store: ObjectStore, folder: Path
) -> None:
    faults.plan(fault, KINDS[kind])
    with pytest.raises(AccessDenied) as raised:
        publish(store, folder, kind="lora", path=PATH)
    assert judge(raised.value)[0] is ExitCode.ACCESS_DENIED
    if kind != "the release":
        assert not exists(store, PATH)
    publish(store, folder, kind="lora", path=PATH)
    assert verify(store, PATH)


def test_403_is_never_taken_for_a_run_without_checkpoints(faults: Faults, store: ObjectStore, tmp_path: Path) -> None:
    run = Run(store, "local")
    assert newest_checkpoint(run, {}, tmp_path) is None
    for fault in LASTING:
        faults.plan(fault)
        with pytest.raises(AccessDenied):
            newest_checkpoint(run, {}, tmp_path)


@pytest.mark.parametrize("fault", [Fault.UNAVAILABLE_BEFORE, Fault.RESET_BEFORE, Fault.SLOW_DOWN])
def test_a_store_that_stays_away_ends_with_69_and_nothing_is_taken_for_missing(
    fault: Fault, faults: Faults, store: ObjectStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(store, folder, kind="lora", path=PATH)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    store = open_store(store.uri)
    for _ in range(40):
        faults.plan(fault)
    for action in (lambda: exists(store, PATH), lambda: list(store.list("")), lambda: store.put("a", b"1")):
        with pytest.raises(StorageUnreachable) as raised:
            action()
        assert judge(raised.value)[0] is ExitCode.STORAGE_UNREACHABLE


# Credentials


def test_an_expired_token_is_replaced_by_the_one_that_was_written_meanwhile(
    faults: Faults, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(token: str) -> None:
        lines = [
            "[default]",
            f"aws_access_key_id={KEY}",
            f"aws_secret_access_key={SECRET}",
            f"aws_session_token={token}",
        ]
        (tmp_path / "credentials").write_text("\n".join(lines))

    write("first")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    store = open_store(f"s3://{bucket}")
    store.put("a", b"1")
    faults.plan(Fault.EXPIRED)
    with pytest.raises(AccessDenied, match="AWS_SESSION_TOKEN"):
        store.put("a", b"2")  # there is no other yet
    write("second")
    faults.plan(Fault.EXPIRED)
    store.put("a", b"3")
    assert store.get("a") == b"3"
    assert [request.token for request in faults.requests if is_put(request)] == ["first"] * 3 + ["second"]


def test_the_token_of_a_pod_s_role_is_exchanged_anew_when_its_credentials_have_expired(
    moto: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with faulty(moto) as faults:
        use(faults.server, monkeypatch)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        (tmp_path / "token").write_text("as Kubernetes writes it, and again every hour")
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
        monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/sdlora")
        store = open_store(f"s3://{faults.server.new_bucket()}")
        store.put("a", b"1")
        faults.plan(Fault.EXPIRED, is_put)
        store.put("a", b"2")
        assert store.get("a") == b"2"
        first, refused, second = [request.token for request in faults.requests if is_put(request)]
        assert first == refused != second
        assert "" not in (first, second)


# Large files


def test_after_a_failed_part_only_the_missing_parts_are_sent_again(
    faults: Faults, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    source = file_of(tmp_path, 3 * PART + 1000)
    faults.plan(Fault.RESET_BEFORE, is_part, skip=1)
    with pytest.raises(StorageUnreachable):
        open_store(f"s3://{bucket}").put("large", source)
    assert parts_sent(faults) == 4
    store = open_store(f"s3://{bucket}")  # as another attempt after a crash would
    store.put("large", source)
    assert parts_sent(faults) == 5
    store.download("large", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("fault", [Fault.CORRUPT_REQUEST, Fault.RESET_AFTER, Fault.TRUNCATED_REQUEST])
def test_a_part_that_does_not_arrive_as_it_was_sent_is_sent_again(
    fault: Fault, faults: Faults, store: ObjectStore, tmp_path: Path
) -> None:
    source = file_of(tmp_path, PART + 1000)
    faults.plan(fault, is_part)
    store.put("large", source)
    assert parts_sent(faults) == 3
    store.download("large", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()


def test_an_upload_of_other_content_is_not_gone_on_with(
    faults: Faults, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    store = open_store(f"s3://{bucket}")
    faults.plan(Fault.RESET_BEFORE, is_part)
    with pytest.raises(StorageUnreachable):
        store.put("large", file_of(tmp_path, PART + 1000))
    other = file_of(tmp_path, PART + 1000)
    store.put("large", other)
    store.download("large", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == other.read_bytes()


def test_the_end_of_an_upload_whose_answer_was_lost_leaves_the_whole_file(
    faults: Faults, store: ObjectStore, tmp_path: Path
) -> None:
    source = file_of(tmp_path, PART + 1000)
    faults.plan(Fault.RESET_AFTER, lambda request: request.method == "POST" and "uploadId" in request.query)
    store.put("large", source)
    store.download("large", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fault", [Fault.TRUNCATED_ANSWER, Fault.STALL_INSIDE])
def test_a_download_that_breaks_off_goes_on_where_it_broke(
    fault: Fault, faults: Faults, store: ObjectStore, tmp_path: Path
) -> None:
    source = file_of(tmp_path, 4 << 20)
    store.put("large", source)
    faults.plan(fault, is_get)
    store.download("large", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()
    first, second = [request.range for request in faults.requests if is_get(request)]
    assert first == ""
    assert int(second.removeprefix("bytes=").partition("-")[0]) > 0


def test_what_a_killed_writer_has_sent_of_a_file_is_freed_after_a_day(
    faults: Faults, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    store = open_store(f"s3://{bucket}/team")
    faults.plan(Fault.RESET_BEFORE, is_part)
    with pytest.raises(StorageUnreachable):
        store.put(f"{PATH}/large", file_of(tmp_path, 2 * PART))
    now = datetime.now(UTC)
    assert plan_sweep(store, now) == []
    [upload] = plan_sweep(store, now + timedelta(hours=25))
    assert (upload.path, upload.bytes) == (f"{PATH}/large", PART)
    carry_out(store, [upload])
    carry_out(store, [upload])
    assert plan_sweep(store, now + timedelta(hours=25)) == []


# Servers of other kinds


def test_whether_a_server_honours_conditions_is_found_by_trying(
    moto: S3Server, rclone: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for server in (moto, rclone):
        use(server, monkeypatch)
        store = S3Store(server.new_bucket())
        found.append(store.honours_conditions())
        assert list(store.list("")) == []
    assert found == [True, False]


def test_the_style_of_addresses_is_boto3s_own_or_that_of_the_variable(
    moto: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def host_asked() -> str:
        asked: list[str] = []
        client = S3Store("some-bucket").connection._client
        client.meta.events.register("before-send.s3", lambda request, **_: asked.append(request.url))
        client.meta.events.register("before-send.s3", answer_nothing)
        client.list_objects_v2(Bucket="some-bucket")
        return asked[0].partition("://")[2].partition("?")[0]

    use(moto, monkeypatch)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://minio.example:9000")
    assert host_asked() == "minio.example:9000/some-bucket"
    monkeypatch.setenv("S3_ADDRESSING_STYLE", "virtual")
    assert host_asked() == "some-bucket.minio.example:9000/"
    monkeypatch.delenv("S3_ADDRESSING_STYLE")
    (tmp_path / "config").write_text("[default]\ns3 =\n    addressing_style = virtual\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    assert host_asked() == "some-bucket.minio.example:9000/"
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("S3_ADDRESSING_STYLE", "path")
    assert host_asked().endswith("amazonaws.com/some-bucket")


def answer_nothing(request: Any, **_: object) -> Any:
    """An empty listing in place of a request, so that no name has to be looked up."""
    from botocore.awsrequest import AWSResponse

    class Raw:
        def stream(self) -> Iterator[bytes]:
            yield b"<ListBucketResult></ListBucketResult>"

    return AWSResponse(request.url, 200, {}, Raw())


# A process that is really killed

# As `commit` does it, without the learning libraries that its module loads.
WRITER = """
import sys, uuid
from pathlib import Path
from service.artifacts.runs import Run
from service.storage.opening import open_store
from service.artifacts.publishing import publish
run, folder = Run(open_store(sys.argv[1]), "local"), Path(sys.argv[2])
for step in range(1, 1000):
    (folder / "step").write_text(str(step))
    (folder / "weights").write_bytes(step.to_bytes(4, "big") * 500_000)
    publish(run.store, folder, kind="checkpoint", path=f"runs/local/checkpoints/step-{step:08d}/{uuid.uuid4().hex}")
    print(step, file=sys.stderr, flush=True)
"""


def test_a_writer_that_is_killed_at_any_moment_loses_no_committed_checkpoint(
    store: ObjectStore, tmp_path: Path
) -> None:
    run = Run(store, "local")
    (tmp_path / "made").mkdir()
    for number, patience in enumerate((0.0, 0.06, 0.11)):
        command = [sys.executable, "-c", WRITER, store.uri, str(tmp_path / "made")]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as writer:
            assert writer.stderr is not None
            told = [writer.stderr.readline() for _ in range(2)]
            time.sleep(patience)
            writer.kill()
            committed = int([*told, *writer.stderr.read().splitlines()][-1])
        found = newest_checkpoint(run, {}, tmp_path / f"work{number}")
        assert found is not None
        folder = found.folder
        step = int((folder / "step").read_text())
        assert step >= committed
        assert (folder / "weights").read_bytes() == step.to_bytes(4, "big") * 500_000


def test_two_writers_of_different_files_under_one_path_leave_one_of_the_two_whole(
    store: ObjectStore, tmp_path: Path
) -> None:
    def write(who: int, path: str, barrier: threading.Barrier) -> None:
        made = tmp_path / f"{path.rpartition('/')[2]}-{who}"
        made.mkdir()
        for name in ("a", "b", "c"):
            (made / name).write_bytes(b"%d" % who * 1000)
        barrier.wait()
        publish(store, made, kind="lora", path=path, settings={"seed": 1})

    for number in range(6):
        path = f"runs/local/images/{number}"
        barrier = threading.Barrier(3)
        writers = [threading.Thread(target=write, args=(who, path, barrier)) for who in (1, 2, 3)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        found = fetch(store, path, tmp_path / "work")
        contents = {(found / name).read_bytes() for name in ("a", "b", "c")}
        assert len(contents) == 1
        with pytest.raises(NotFound):
            store.get(f"{path}/nothing")
