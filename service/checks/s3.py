"""What only a bucket is asked: its clock, conditional writes, multipart uploads."""

import hashlib
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.exceptions import ClientError

from service.checks.result import CheckResult, ok, warning
from service.exits import AccessDenied, BadData, ServiceError
from service.storage.interface import ObjectStore
from service.storage.s3.errors import ALREADY_THERE, NO_CONDITIONS, code_of
from service.storage.s3.store import S3Store
from service.storage.s3.upload import begin_upload, complete_upload, send_part

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
        self._connection = store.connection

    @classmethod
    def of(cls, store: ObjectStore) -> "S3Probe":
        assert isinstance(store, S3Store)
        return cls(store)

    def answers(self) -> CheckResult:
        """Whether there is a server with the bucket, and what time it thinks it is."""
        try:
            headers = dict(self._connection.ask_for_bucket())
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

    def conditional(self, key: str) -> CheckResult:
        """Whether a second writer hears of a first one (If-None-Match), and of a change in between (If-Match)."""
        where: dict[str, Any] = {"Bucket": self._store.bucket, "Key": self._full(key)}
        honoured = []
        self._connection.call(lambda client: client.put_object(**where, Body=b"first"))
        for name, condition in CONDITIONS.items():
            try:
                self._connection.call(
                    lambda client, condition=condition: client.put_object(  # type: ignore[misc]
                        **where, Body=b"second", **condition
                    ),
                    passing=ALREADY_THERE | NO_CONDITIONS,
                )
            except ClientError as error:
                if code_of(error) in ALREADY_THERE:
                    honoured.append(name)
        if len(honoured) == 2:
            return ok("storage conditional write", "If-None-Match and If-Match are honoured")
        return warning(
            "storage conditional write",
            f"the server ignores {'If-Match' if honoured else 'If-None-Match and If-Match'}",
            "nothing is lost by it, but of two promotions at the same moment the later one stands",
        )

    def multipart(self, key: str) -> CheckResult:
        """An upload in two parts, read back."""
        full, connection = self._full(key), self._connection
        parts = [b"s" * SMALLEST_PART, b"d" * 1000]
        upload, done = begin_upload(connection, full), False
        try:
            sent = {number: send_part(connection, full, upload, number, part) for number, part in enumerate(parts, 1)}
            complete_upload(connection, full, upload, sent)
            done = True
        finally:
            if not done:
                # Parts of an upload that was given up are listed nowhere and paid for all the same.
                with suppress(ServiceError, ClientError):
                    connection.call(
                        lambda client: client.abort_multipart_upload(
                            Bucket=self._store.bucket, Key=full, UploadId=upload
                        )
                    )
        if hashlib.sha256(self._store.get(key)).digest() != hashlib.sha256(b"".join(parts)).digest():
            raise BadData(
                f"{self._store.uri} gives back another object than was uploaded in parts; check the server, and the "
                "proxies on the way to it"
            )
        return ok("storage multipart", "an upload in parts is read back")

    def _full(self, key: str) -> str:
        return f"{self._store.prefix}/{key}" if self._store.prefix else key


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
