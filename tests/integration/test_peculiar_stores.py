"""Servers that speak S3 in their own way: what they refuse and what they tell is understood, or named for what it is."""

import re
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.artifacts.fetching import verify
from service.artifacts.publishing import publish, read_manifest
from service.checks.result import CheckStatus, first_failure
from service.checks.storage import storage_checks
from service.exits import AccessDenied, BadConfiguration, ServiceError, StorageUnreachable
from service.storage.interface import ObjectStore
from service.storage.opening import open_store
from service.storage.s3.upload import PART
from tests.conftest import use
from tests.faults import Faults, Headers, Request, faulty
from tests.servers import S3Server

PATH = "runs/local/lora"


@pytest.fixture
def faults(moto: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    with faulty(moto) as faults:
        use(faults.server, monkeypatch)
        yield faults


@pytest.fixture
def store(faults: Faults) -> ObjectStore:
    return open_store(f"s3://{faults.server.new_bucket()}/team")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "made").mkdir()
    (tmp_path / "made/weights").write_bytes(b"weights")
    return tmp_path / "made"


@pytest.mark.parametrize(
    ("status", "code"), [(400, "InvalidRequest"), (400, "InvalidArgument"), (501, "NotImplemented")]
)
def test_a_server_that_refuses_conditional_writes_is_as_good_as_one_that_ignores_them(
    status: int, code: str, faults: Faults, store: ObjectStore, folder: Path
) -> None:
    faults.refuses = lambda request: (status, code, "If-None-Match is not supported") if request.conditional else None
    published = publish(store, folder, kind="lora", path=PATH)
    assert verify(store, PATH) == published.manifest
    assert store.put_if_absent("claim", b"first")
    assert not store.put_if_absent("claim", b"second")
    assert store.get("claim") == b"first"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("full", [True, False], ids=["the same page", "an empty page"])
def test_a_listing_that_does_not_get_on_ends_with_69(full: bool, faults: Faults, store: ObjectStore) -> None:
    for name in ("a", "b"):
        store.put(name, b"1")
    first: list[bytes] = []

    def stuck(request: Request, headers: Headers, content: bytes) -> tuple[Headers, bytes]:
        if "list-type" not in request.query:
            return headers, content
        page = content.replace(b"<IsTruncated>false", b"<IsTruncated>true")
        if not full and first:
            page = page[: page.index(b"<Contents>")] + b"</ListBucketResult>" if b"<Contents>" in page else page
        first.append(page)
        return headers, first[0] if full else page

    faults.edits = stuck
    with pytest.raises(StorageUnreachable, match="same page again"):
        list(store.list(""))
    assert len(first) <= 3


NGINX = (
    "<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n<body><hr><center>nginx</center>\r\n</html>"
)
ANSWERS = {
    "R2's region": (400, "InvalidRegionName", "The region name 'x' is not valid.", BadConfiguration, "AWS_REGION"),
    "Garage's region": (400, "AuthorizationHeaderMalformed", "unexpected scope", BadConfiguration, "AWS_REGION"),
    "a short key": (
        400,
        "InvalidArgument",
        "Credential access key has length 3, should be 32",
        AccessDenied,
        "ACCESS_KEY",
    ),
    "B2's cap": (
        403,
        "AccessDenied",
        "Cannot upload files, storage cap exceeded.",
        StorageUnreachable,
        "is full.*cap exce",
    ),
    "a quota": (403, "QuotaExceeded", "over", StorageUnreachable, "is full"),
    "a full disk": (507, "XMinioStorageFull", "reached its minimum free drive", StorageUnreachable, "is full"),
    "Swift's quota": (
        413,
        "EntityTooLarge",
        "Upload exceeds",
        StorageUnreachable,
        "takes no object of this size.*Upload exc",
    ),
    "no listing": (403, "AccessDenied", "Access Denied", AccessDenied, "s3:ListBucket"),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_what_a_server_says_is_named_for_what_it_is(
    case: str, faults: Faults, store: ObjectStore, folder: Path
) -> None:
    status, code, message, error, match = ANSWERS[case]
    faults.refuses = lambda _: (status, code, message)
    for action in (lambda: store.put("key", b"1"), lambda: publish(store, folder, kind="lora", path=PATH)):
        with pytest.raises(ServiceError, match=match) as raised:
            action()
        assert type(raised.value) is error
        assert "\n" not in str(raised.value)


def test_etags_that_never_fit_are_one_warning_and_cost_nothing_more(
    faults: Faults, store: ObjectStore, folder: Path
) -> None:
    def random_etags(_: Request, headers: Headers, content: bytes) -> tuple[Headers, bytes]:
        return [
            (name, f'"{uuid.uuid4().hex}"' if name.lower() == "etag" else value) for name, value in headers
        ], content

    faults.edits = random_etags
    with capture_logs() as logs:
        store.put("first", b"1")
        before = len(faults.requests)
        store.put("second", b"2")
        assert len(faults.requests) == before + 1
        publish(store, folder, kind="lora", path=PATH)
    assert [entry["event"] for entry in logs if "ETag" in entry["event"]] == [
        "ETags of the server are no MD5 of what it was sent; they are no longer compared"
    ]
    assert store.get("first") == b"1"
    assert verify(store, PATH)


@pytest.mark.parametrize(
    "page",
    [b"<!doctype html><title>Console</title>", b"<html><body><p>Sign in</p></body></html>"],
    ids=["HTML", "HTML that is XML as well"],
)
def test_a_web_page_in_place_of_an_answer_is_told_to_be_that(
    page: bytes, faults: Faults, store: ObjectStore, tmp_path: Path
) -> None:
    def console(_: Request, __: Headers, ___: bytes) -> tuple[Headers, bytes]:
        return [("Content-Type", "text/html")], page

    for key in ("key", f"{PATH}/MANIFEST.json"):
        store.put(key, b"{}")
    faults.edits = console
    large = tmp_path / "large"
    large.write_bytes(b"1" * (PART + 1))
    actions: list[Callable[[], object]] = [
        lambda: read_manifest(store, PATH),
        lambda: store.download("key", tmp_path / "copy"),
        lambda: store.put("key", b"1"),
        lambda: store.put("key", large),
        lambda: list(store.list("")),
    ]
    for action in actions:
        before = len(faults.requests)
        with pytest.raises(BadConfiguration, match=r"no S3 server.*AWS_ENDPOINT_URL"):
            action()
        assert len(faults.requests) - before <= 2  # once: it will not become a store


def is_write(request: Request) -> bool:
    return request.method == "PUT" and request.path.count("/") >= 2


def is_checked(request: Request) -> bool:
    return any(name.startswith("x-amz-checksum-") for name in request.headers)


OUTRUN = [("Content-Type", "text/html; charset=UTF-8"), ("x-amz-request-id", "tx0")]
ACCEPTED = b"<html><h1>Accepted</h1><p>The request is accepted for processing.</p></html>"


def test_a_write_that_swift_did_not_make_because_of_a_newer_one_is_repeated(
    faults: Faults, store: ObjectStore, folder: Path, tmp_path: Path
) -> None:
    outrun: set[tuple[str, frozenset[str]]] = set()

    def outrun_each_once(request: Request, headers: Headers, content: bytes) -> tuple[Headers, bytes]:
        write = (request.path, request.query)
        if request.method != "PUT" or write in outrun:
            return headers, content
        outrun.add(write)
        return OUTRUN, ACCEPTED

    large = tmp_path / "large"
    large.write_bytes(b"1" * (PART + 1))
    faults.edits = outrun_each_once
    published = publish(store, folder, kind="lora", path=PATH)
    store.put("large", large)
    writes = [(request.path, request.query) for request in faults.requests if request.method == "PUT"]
    assert len(outrun) == 4  # the file and its manifest, and two parts
    assert all(writes.count(write) >= 2 for write in outrun)
    assert verify(store, PATH) == published.manifest
    store.download("large", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == large.read_bytes()

    faults.edits = lambda request, *answer: (OUTRUN, ACCEPTED) if request.method == "PUT" else answer
    with pytest.raises(StorageUnreachable, match="accepted for processing"):
        store.put("key", b"1")


LOCKED = "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters"


@pytest.mark.parametrize(
    ("code", "message"),
    [("InvalidRequest", LOCKED), ("MissingContentMD5", "Missing required header for this request: Content-MD5.")],
    ids=["AWS", "OCI"],
)
def test_a_bucket_with_object_lock_is_sent_the_md5_that_it_asks_for_and_asks_once(
    code: str, message: str, faults: Faults, store: ObjectStore, folder: Path
) -> None:
    (folder / "large").write_bytes(b"1234" * (PART // 4) + b"5")
    (folder / "medium").write_bytes(b"1" * (2 << 20))
    faults.refuses = lambda request: (
        (400, code, message) if is_write(request) and "content-md5" not in request.headers else None
    )
    store.put("first", b"1")
    published = publish(store, folder, kind="lora", path=PATH)
    assert verify(store, PATH) == published.manifest
    writes = [request for request in faults.requests if is_write(request)]
    assert [request for request in writes if "content-md5" not in request.headers] == writes[:1]
    assert all(request.headers["content-md5"] == request.md5 for request in writes[1:])
    assert not store.put_if_absent("first", b"2")


@pytest.mark.parametrize("kind", ["Content-MD5 header", "checksum"])
def test_of_many_first_writes_at_once_each_is_sent_again_with_what_is_asked_for(
    kind: str, faults: Faults, store: ObjectStore
) -> None:
    def lacks_it(request: Request) -> bool:
        return is_write(request) and not ("content-md5" in request.headers or is_checked(request))

    together = threading.Barrier(8)

    def refuse(request: Request) -> tuple[int, str, str] | None:
        if not lacks_it(request):
            return None
        together.wait(30)  # all of them were sent before anybody knew
        return 400, "InvalidRequest", f"{kind} is required"

    faults.refuses = refuse
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: store.put(f"{number}", b"1"), range(8)))
    assert sum(map(lacks_it, faults.requests)) == 8
    assert len(list(store.list(""))) == 8


def test_a_server_that_asks_for_a_checksum_is_sent_one_with_every_part_and_at_the_end(
    faults: Faults, store: ObjectStore, tmp_path: Path
) -> None:
    large = tmp_path / "large"
    large.write_bytes(b"1234" * (PART // 4) + b"5")
    faults.refuses = lambda request: (
        (400, "InvalidRequest", "A checksum is required for this bucket") if _unchecked(request) else None
    )
    store.put("small", b"1")
    store.put("large", large)
    assert store.get("small") == b"1"
    store.download("large", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == large.read_bytes()
    assert sum(map(_unchecked, faults.requests)) == 1


def test_a_checksum_that_was_asked_for_is_sent_also_when_the_server_is_busy_meanwhile(
    faults: Faults, store: ObjectStore
) -> None:
    busy = [(503, "SlowDown", "later"), (503, "SlowDown", "later")]

    def refuse(request: Request) -> tuple[int, str, str] | None:
        if _unchecked(request):
            return 400, "InvalidRequest", "A checksum is required for this bucket"
        return busy.pop() if is_write(request) and busy else None

    faults.refuses = refuse
    store.put("key", b"1")
    assert store.get("key") == b"1"
    assert sum(map(_unchecked, faults.requests)) == 1


def _unchecked(request: Request) -> bool:
    return is_write(request) and not is_checked(request)


def test_a_refused_md5_is_damage_on_the_way_and_no_wish(faults: Faults, store: ObjectStore) -> None:
    refusals = [(400, "BadDigest", "The Content-MD5 you specified did not match what we received.")]
    faults.refuses = lambda request: refusals.pop() if is_write(request) and refusals else None
    store.put("key", b"1")
    assert (refusals, store.get("key")) == ([], b"1")
    assert not [request for request in faults.requests if "content-md5" in request.headers]


def test_a_server_that_does_not_like_to_be_asked_whether_it_wants_a_body_is_asked_once(
    faults: Faults, store: ObjectStore, folder: Path
) -> None:
    (folder / "large").write_bytes(b"1234" * (PART // 4) + b"5")
    (folder / "medium").write_bytes(b"1" * (2 << 20))
    faults.no_expect = True
    store.put("medium", folder / "medium")
    publish(store, folder, kind="lora", path=PATH)
    assert verify(store, PATH)
    assert faults.expected == 1


def test_a_server_that_does_not_mind_is_asked_whether_it_wants_a_body(
    faults: Faults, store: ObjectStore, folder: Path
) -> None:
    (folder / "medium").write_bytes(b"1" * (2 << 20))
    for _ in range(2):
        store.put("medium", folder / "medium")
    assert faults.expected == 2


@pytest.mark.parametrize("choice", ["when_supported", "when_required", None])
def test_checksums_that_the_user_asks_for_stay_in_force(
    choice: str | None, faults: Faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = tmp_path / "large"
    large.write_bytes(b"1234" * (PART // 4) + b"5")
    bucket = faults.server.new_bucket()
    if choice:
        monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", choice)
    store = open_store(f"s3://{bucket}")
    store.put("small", b"1")
    store.put("large", large)
    writes = [request for request in faults.requests if request.path.startswith(f"/{bucket}/") and is_write(request)]
    assert {is_checked(request) for request in writes} == {choice == "when_supported"}
    faults.refuses = lambda request: (
        (400, "InvalidRequest", "A checksum is required for this bucket") if _unchecked(request) else None
    )
    if choice == "when_required":
        with pytest.raises(StorageUnreachable, match="checksum is required"):
            store.put("small", b"1")


@pytest.mark.parametrize("case", ANSWERS)
def test_doctor_and_jobs_say_the_same_of_it_also_where_head_has_no_body(
    case: str, faults: Faults, store: ObjectStore
) -> None:
    status, code, message, error, match = ANSWERS[case]
    faults.refuses = lambda _: (status, code, message)
    with pytest.raises(ServiceError) as of_jobs:
        store.put("key", b"1")
    found = {result.check: result for result in storage_checks(store.uri)}
    first = first_failure(found.values())
    assert first is not None
    assert first.exit_code == error.exit_code == of_jobs.value.exit_code
    assert re.search(match, f"{first.fact}; {first.advice}")
    assert "bug" not in first.advice


def test_a_region_that_is_followed_is_followed_by_doctor_as_well(faults: Faults, store: ObjectStore) -> None:
    """The server takes requests that are signed for eu-west-3 alone, and says so where its answer has a body."""

    def elsewhere(request: Request) -> tuple[int, str, str] | None:
        if "/eu-west-3/" in request.headers.get("authorization", ""):
            return None
        return 400, "AuthorizationHeaderMalformed", "the region is wrong</Message><Region>eu-west-3</Region><Message>"

    faults.refuses = elsewhere
    store.put("key", b"1")
    found = list(storage_checks(store.uri))
    assert [result for result in found if result.status == CheckStatus.FAILURE] == []
    assert store.get("key") == b"1"


def test_who_is_refused_a_missing_object_hears_of_the_right_to_list_from_doctor_as_from_the_jobs(
    faults: Faults, store: ObjectStore
) -> None:
    faults.refuses = lambda request: (
        (403, "AccessDenied", "Access Denied")
        if "list-type" in request.query or (request.path.endswith("-missing") and request.method == "GET")
        else None
    )
    with pytest.raises(AccessDenied, match="s3:ListBucket"):
        store.get("not-there-missing")
    found = {result.check: result for result in storage_checks(store.uri)}
    missing = found["storage missing object"]
    assert (missing.status, missing.exit_code) == (CheckStatus.FAILURE, AccessDenied.exit_code)
    assert "s3:ListBucket" in missing.advice
    assert {found[f"storage {name}"].status for name in ("write", "read")} == {CheckStatus.OK}


def test_a_key_that_may_only_read_is_told_to_be_that(faults: Faults, store: ObjectStore) -> None:
    faults.refuses = lambda request: (403, "AccessDenied", "Access Denied") if request.method != "GET" else None
    found = {result.check: result for result in storage_checks(store.uri)}
    first = first_failure(found.values())
    assert first is not None
    assert (first.check, first.exit_code) == ("storage write", AccessDenied.exit_code)
    assert "not written to" in first.fact
    assert "s3:PutObject" in first.advice
    assert {found[f"storage {name}"].status for name in ("read", "list")} == {CheckStatus.WARNING}
    assert not [result for result in found.values() if "another server" in result.advice]


@pytest.mark.parametrize("larger_than", [1 << 20, 0], ids=["parts", "all"])
def test_the_limit_of_a_proxy_is_named_by_doctor_and_jobs(
    larger_than: int, faults: Faults, store: ObjectStore, tmp_path: Path
) -> None:
    large = tmp_path / "large"
    large.write_bytes(b"1" * (2 << 20))

    faults.refuses = lambda request: (
        (413, "", NGINX) if int(request.headers.get("content-length", 0)) > larger_than else None
    )
    with pytest.raises(StorageUnreachable, match="client_max_body_size"):
        store.put("large", large)
    first = first_failure(storage_checks(store.uri))
    assert first is not None
    assert first.exit_code == StorageUnreachable.exit_code
    assert "client_max_body_size" in f"{first.fact} {first.advice}"
