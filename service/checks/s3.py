"""What only a bucket is asked: its clock, conditional writes, multipart uploads."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import botocore.session
from botocore.exceptions import BotoCoreError, ClientError

from service.checks.result import CheckResult, ok, warning
from service.exits import AccessDenied, BadData, MissingInput
from service.settings.s3 import S3Settings
from service.storage.interface import ObjectStore
from service.storage.s3.connection import new_client
from service.storage.s3.errors import ALREADY_THERE, NO_CONDITIONS, code_of, explained
from service.storage.s3.store import S3Store

ATTEMPTS = 3
SKEW_REFUSED = 900
"""Seconds: S3 takes a request that is further off for a replayed one, and refuses it."""
SKEW_SUSPECT = 60
SMALLEST_PART = 5 << 20
"""Bytes: of all parts of an upload only the last may be smaller."""
# Of neither is the condition true for an object that is there.
CONDITIONS: dict[str, dict[str, Any]] = {
    "If-None-Match": {"IfNoneMatch": "*"},
    "If-Match": {"IfMatch": '"00000000000000000000000000000000"'},
}


class S3Probe:
    """Requests of our own, where the store's methods would hide how the server answers."""

    def __init__(self, store: S3Store) -> None:
        self._store = store
        self._bucket = store.bucket
        with self._explaining():
            # The store's own, but that it gives up sooner: somebody is waiting for the answer.
            settings = S3Settings().or_else(s3_connect_timeout=5, s3_read_timeout=30)
            self._client = new_client(botocore.session.get_session(), ATTEMPTS, settings)

    @classmethod
    def of(cls, store: ObjectStore) -> "S3Probe":
        assert isinstance(store, S3Store)
        return cls(store)

    def answers(self) -> CheckResult:
        """Whether there is a server with the bucket, and what time it thinks it is."""
        try:
            with self._explaining():
                headers = self._headers_of_bucket()
        except AccessDenied as error:
            # Also said by a server for whom the bucket itself is closed and our prefix is not: what follows will show.
            if not isinstance(error.__cause__, ClientError):
                raise
            headers = _answered(error.__cause__)
        skew = _skew_of(headers.get("date", ""), datetime.now(UTC))
        if skew is None:
            return warning("storage", f"{self._store.uri} answers, but gives no time", "compare the clocks yourself")
        if abs(skew) >= SKEW_REFUSED:
            raise AccessDenied(
                f"the clock here is {skew:+.0f} s off that of {self._store.uri}, which refuses requests that are older "
                "than 15 minutes; set the clock, or start NTP on the node"
            )
        if abs(skew) >= SKEW_SUSPECT:
            return warning("storage", f"the clock here is {skew:+.0f} s off that of {self._store.uri}", "start NTP")
        return ok("storage", f"{self._store.uri} answers; the clocks agree to {max(1, abs(round(skew)))} s")

    def _headers_of_bucket(self) -> dict[str, str]:
        try:
            return self._client.head_bucket(Bucket=self._bucket)["ResponseMetadata"]["HTTPHeaders"]
        except ClientError as error:
            # The answer to HEAD has no body to name the error: without this a missing bucket would be an error 404.
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
                raise MissingInput(
                    f"bucket {self._bucket!r} does not exist; create it, or correct ARTIFACTS_URI"
                ) from error
            raise

    def conditional(self, key: str) -> CheckResult:
        """Whether a second writer hears of a first one (If-None-Match), and of a change in between (If-Match)."""
        where: dict[str, Any] = {"Bucket": self._bucket, "Key": self._full(key)}
        honoured = []
        with self._explaining():
            self._client.put_object(**where, Body=b"first")
            for name, condition in CONDITIONS.items():
                try:
                    self._client.put_object(**where, Body=b"second", **condition)
                except ClientError as error:
                    if code_of(error) in ALREADY_THERE:
                        honoured.append(name)
                    elif code_of(error) not in NO_CONDITIONS:
                        raise
        if len(honoured) == 2:
            return ok("storage conditional write", "If-None-Match and If-Match are honoured")
        return warning(
            "storage conditional write",
            f"the server ignores {'If-Match' if honoured else 'If-None-Match and If-Match'}",
            "nothing is lost by it, but of two promotions at the same moment the later one stands",
        )

    def multipart(self, key: str) -> CheckResult:
        """An upload in two parts, read back."""
        where: dict[str, Any] = {"Bucket": self._bucket, "Key": self._full(key)}
        parts = [b"s" * SMALLEST_PART, b"d" * 1000]
        with self._explaining():
            upload = self._client.create_multipart_upload(**where)["UploadId"]
            done = False
            try:
                tags: list[Any] = [
                    {
                        "PartNumber": number,
                        "ETag": self._client.upload_part(**where, UploadId=upload, PartNumber=number, Body=part)[
                            "ETag"
                        ],
                    }
                    for number, part in enumerate(parts, start=1)
                ]
                self._client.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": tags})
                done = True
            finally:
                if not done:
                    # Parts of an upload that was given up are listed nowhere and paid for all the same.
                    with suppress(BotoCoreError, ClientError):
                        self._client.abort_multipart_upload(**where, UploadId=upload)
        if hashlib.sha256(self._store.get(key)).digest() != hashlib.sha256(b"".join(parts)).digest():
            raise BadData(
                f"{self._store.uri} gives back another object than was uploaded in parts; check the server, and the "
                "proxies on the way to it"
            )
        return ok("storage multipart", "an upload in parts is read back")

    def _full(self, key: str) -> str:
        prefix = self._store.uri.removeprefix(f"s3://{self._bucket}").strip("/")
        return f"{prefix}/{key}" if prefix else key

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except (BotoCoreError, ClientError, ValueError) as error:
            raise explained(error, self._bucket) from error


def _answered(error: ClientError) -> dict[str, str]:
    """The headers of the answer that refused us."""
    headers: dict[str, str] = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return headers


def _skew_of(date: str, now: datetime) -> float | None:
    """Seconds by which the clock here is ahead of the Date header; None for a header that is none."""
    try:
        return (now - parsedate_to_datetime(date)).total_seconds()
    except (TypeError, ValueError):
        return None
