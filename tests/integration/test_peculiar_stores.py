"""Servers that speak S3 in their own way: what they refuse and what they tell is understood, or named for what it is."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.artifacts.fetching import verify
from service.artifacts.publishing import publish, read_manifest
from service.exits import AccessDenied, BadConfiguration, ServiceError, StorageUnreachable
from service.storage.interface import ObjectStore
from service.storage.opening import open_store
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


def test_a_web_page_in_place_of_an_answer_is_told_to_be_that(
    faults: Faults, store: ObjectStore, tmp_path: Path
) -> None:
    def console(_: Request, __: Headers, ___: bytes) -> tuple[Headers, bytes]:
        return [("Content-Type", "text/html")], b"<!doctype html><title>Console</title>"

    for key in ("key", f"{PATH}/MANIFEST.json"):
        store.put(key, b"{}")
    faults.edits = console
    for action in (lambda: read_manifest(store, PATH), lambda: store.download("key", tmp_path / "copy")):
        with pytest.raises(BadConfiguration, match=r"no S3 server.*AWS_ENDPOINT_URL"):
            action()


def test_checksums_that_the_user_asks_for_stay_in_force(faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = faults.server.new_bucket()
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
    store = open_store(f"s3://{bucket}")
    client = store._connection._client  # type: ignore[attr-defined]
    assert client.meta.config.request_checksum_calculation == "when_supported"
    monkeypatch.delenv("AWS_REQUEST_CHECKSUM_CALCULATION")
    client = open_store(f"s3://{bucket}")._connection._client  # type: ignore[attr-defined]
    assert client.meta.config.request_checksum_calculation == "when_required"
