"""Artifacts in a bucket of S3, or of any server that speaks its protocol."""

import uuid
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from service.exits import StorageUnreachable
from service.storage.disk import disk_errors
from service.storage.interface import NotFound, StoredObject, Unfinished
from service.storage.keys import checked_key
from service.storage.s3.bodies import reported_md5, sent_whole
from service.storage.s3.connection import ATTEMPTS, Connection, backoff
from service.storage.s3.download import download_to, read_whole
from service.storage.s3.errors import (
    ALREADY_THERE,
    CANNOT,
    CONFLICT,
    DAMAGED_ON_THE_WAY,
    NO_CONDITIONS,
    NO_UPLOAD,
    code_of,
    require_answer,
)
from service.storage.s3.slices import Slice, md5_of, rewound
from service.storage.s3.upload import PART, upload_in_parts

SENT_AT_ONCE = 1 << 20
"""Smaller files are sent without asking the server first whether it wants them."""


class S3Store:
    """An `ObjectStore` in a bucket, below a prefix. Endpoint, region and credentials are found by boto3's own rules."""

    def __init__(self, bucket: str, prefix: str = "", connection: Connection | None = None) -> None:
        self.bucket = bucket
        self.prefix = prefix
        self._prefix = f"{prefix}/" if prefix else ""
        self.uri = f"s3://{bucket}/{prefix}".rstrip("/")
        self.connection = connection or Connection(bucket)

    def put(self, key: str, data: bytes | Path) -> None:
        """In one request up to 16 MiB; above in parts, of which those that a broken attempt has sent are not sent again."""
        full = self._full(key)
        if isinstance(data, bytes):
            self._put_bytes(full, data)
            return
        with disk_errors(data, "WORK_DIR"):
            size = data.stat().st_size
            if size <= SENT_AT_ONCE:
                self._put_bytes(full, data.read_bytes())
            elif size <= PART:
                with Slice(data, 0, size) as body:
                    sent_whole(self.connection, lambda: self._put(full, body), body.md5, f"{self.uri}/{key}")
            else:
                upload_in_parts(self.connection, full, data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """By a conditional write, and read back: the server may ignore the condition."""
        full = self._full(key)
        for number in range(ATTEMPTS):
            # Asked first, because a server that ignores the condition would overwrite what has long been there.
            try:
                self.get(key)
            except NotFound:
                pass
            else:
                return False
            if self._put_if_allowed(full, data):
                # Read back in every case: a refusal may be the echo of our own write, whose answer was lost and which
                # boto3 repeated; and a success may be another's by now on a server that ignores the condition.
                return self.get(key) == data
            backoff(number)
        raise StorageUnreachable(f"{self.uri}/{key} is being written by others all the time; try again")

    def get(self, key: str) -> bytes:
        """Checked against the server's MD5 where it tells one."""
        return read_whole(self.connection, self._full(key))

    def download(self, key: str, target: Path) -> None:
        """Up to 64 MiB in one stream, above in several; what breaks off is taken up again where it broke."""
        with disk_errors(target, "WORK_DIR"):
            download_to(self.connection, self._full(key), target)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Page by page, from the last key on."""
        after, empty = "", True
        while True:
            page = self.connection.call(
                lambda client, after=after: client.list_objects_v2(  # type: ignore[misc]
                    Bucket=self.bucket, Prefix=self._prefix + prefix, StartAfter=after
                )
            )
            before = after
            for entry in page.get("Contents", []):
                if entry["Key"] <= before:
                    continue  # told again by a server that misreads where the page was to begin
                after, empty = entry["Key"], False
                # Consoles leave an empty object "folder/" behind for each folder that was made by hand.
                if not after.endswith("/"):
                    yield StoredObject(after.removeprefix(self._prefix), entry["Size"], entry["LastModified"])
            if not page.get("IsTruncated"):
                break
            if after == before:
                raise StorageUnreachable(
                    f"{self.uri} cannot be listed: the server gives the same page again and again, and says that more is "
                    "to come; check AWS_ENDPOINT_URL, and what lies between"
                )
        if empty:
            # Some servers list a missing bucket as an empty one.
            self.connection.require_bucket()

    def delete(self, key: str) -> None:
        """One request, of which a missing key is no failure."""
        full = self._full(key)
        try:
            self.connection.call(lambda client: client.delete_object(Bucket=self.bucket, Key=full), full)
        except NotFound:
            return

    def unfinished(self, before: datetime) -> Iterator[Unfinished]:
        """Multipart uploads without progress since `before`; none where the server cannot tell."""
        for key, name, begun in self._uploads():
            if begun < before:
                try:
                    answer = self.connection.call(
                        lambda client, key=key, name=name: client.list_parts(  # type: ignore[misc]
                            Bucket=self.bucket, Key=key, UploadId=name
                        ),
                        passing=NO_UPLOAD,
                    )
                except ClientError:
                    continue  # finished by now
                parts = answer.get("Parts", [])
                touched = max([begun, *(part["LastModified"] for part in parts)])
                if touched < before:
                    size = sum(part["Size"] for part in parts)
                    yield Unfinished(key.removeprefix(self._prefix), name, touched, size)

    def discard(self, write: Unfinished) -> None:
        """Aborts the multipart upload."""
        full = self._full(write.key)
        try:
            self.connection.call(
                lambda client: client.abort_multipart_upload(Bucket=self.bucket, Key=full, UploadId=write.name),
                passing=NO_UPLOAD,
            )
        except ClientError:
            return

    def honours_conditions(self) -> bool:
        """Whether the server refuses to overwrite where it is told to. Writes a small object and deletes it again."""
        full = self._full(f"probe-{uuid.uuid4().hex}")
        self._put_bytes(full, b"first")
        try:
            self._put_new(full, b"second")
        except ClientError as error:
            return code_of(error) in ALREADY_THERE
        finally:
            self.connection.call(lambda client: client.delete_object(Bucket=self.bucket, Key=full))
        return False

    def _uploads(self) -> Iterator[tuple[str, str, datetime]]:
        """Key, id and beginning of the multipart uploads under way; none where the server cannot tell."""
        key = name = ""
        while True:
            try:
                page = self.connection.call(
                    lambda client, key=key, name=name: client.list_multipart_uploads(  # type: ignore[misc]
                        Bucket=self.bucket, Prefix=self._prefix, KeyMarker=key, UploadIdMarker=name
                    ),
                    passing=CANNOT | NO_UPLOAD,  # rclone says so when there are none
                )
            except ClientError:
                return
            for upload in page.get("Uploads", []):
                yield upload["Key"], upload["UploadId"], upload["Initiated"]
            before = key, name
            if not page.get("IsTruncated") or before == (page.get("NextKeyMarker"), page.get("NextUploadIdMarker")):
                return
            key, name = page["NextKeyMarker"], page["NextUploadIdMarker"]

    def _put_bytes(self, full: str, data: bytes) -> None:
        sent_whole(self.connection, lambda: self._put(full, data), lambda: md5_of(data), f"s3://{self.bucket}/{full}")

    def _put(self, full: str, body: bytes | Slice) -> Mapping[str, Any]:
        return self.connection.call(
            lambda client: client.put_object(Bucket=self.bucket, Key=full, Body=rewound(body)),
            full,
            passing=DAMAGED_ON_THE_WAY,
        )

    def _put_if_allowed(self, full: str, data: bytes) -> bool:
        """Writes, or is refused because something is there. False: neither, and it must be tried again."""
        try:
            answer = self._put_new(full, data)
        except ClientError as error:
            if code_of(error) in NO_CONDITIONS:
                self._put_bytes(full, data)
            # After a conflict another write or delete of the key was under way: S3 asks to try again.
            return code_of(error) not in CONFLICT | DAMAGED_ON_THE_WAY
        require_answer(answer, "ETag", f"s3://{self.bucket}/{full}")
        if reported_md5(answer) not in (None, md5_of(data)):
            # Ours, damaged on the way. It is there now, so that no condition lets us mend it.
            self._put_bytes(full, data)
        return True

    def _put_new(self, full: str, data: bytes) -> Mapping[str, Any]:
        """Writes on condition that the key is new, or raises ClientError with a code that says why not."""
        return self.connection.call(
            lambda client: client.put_object(Bucket=self.bucket, Key=full, Body=data, IfNoneMatch="*"),
            full,
            passing=ALREADY_THERE | CONFLICT | NO_CONDITIONS | DAMAGED_ON_THE_WAY,
        )

    def _full(self, key: str) -> str:
        return self._prefix + checked_key(key)
