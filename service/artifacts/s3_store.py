"""Artifacts in a bucket of S3, or of any server that speaks its protocol."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError

from service.artifacts.disk import disk_errors
from service.artifacts.s3_errors import (
    ALREADY_THERE,
    CONFLICT,
    NO_CONDITIONS,
    NOT_THERE,
    REFUSALS,
    code_of,
    explained,
    root_of,
)
from service.artifacts.stores import NotFound, StoredObject, Unfinished, checked_key
from service.exits import StorageUnreachable

ATTEMPTS = 5
TRANSFER = TransferConfig(multipart_threshold=16 << 20, multipart_chunksize=16 << 20, max_concurrency=4)


class S3Store:
    """An `ObjectStore` in a bucket, below a prefix. Endpoint, region and credentials are found by boto3's own rules."""

    def __init__(self, bucket: str, prefix: str = "") -> None:
        self.bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self.uri = f"s3://{bucket}/{prefix}".rstrip("/")
        self._bucket_seen = False
        with self._explaining():
            session = boto3.Session()
            # boto3 reads AWS_DEFAULT_REGION and its files; pods are given AWS_REGION; other servers take any.
            region = session.region_name or os.environ.get("AWS_REGION") or "us-east-1"
            self._client = session.client("s3", config=_configuration(), region_name=region)

    def put(self, key: str, data: bytes | Path) -> None:
        full = self._full(key)
        with self._explaining(key):
            if isinstance(data, Path):
                with disk_errors(data, "WORK_DIR"):
                    self._client.upload_file(str(data), self.bucket, full, Config=TRANSFER)
            else:
                self._client.put_object(Bucket=self.bucket, Key=full, Body=data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        # Asked first, because a server that ignores the condition would overwrite what has long been there.
        if self._exists(key):
            return False
        full = self._full(key)
        for _ in range(ATTEMPTS):
            try:
                with self._explaining(key, passing=ALREADY_THERE | CONFLICT | NO_CONDITIONS):
                    self._client.put_object(Bucket=self.bucket, Key=full, Body=data, IfNoneMatch="*")
            except ClientError as error:
                if code_of(error) in CONFLICT:
                    continue  # another write or delete of the key was under way: S3 asks to try again
                if code_of(error) in NO_CONDITIONS:
                    self.put(key, data)
            # Read back in every case: a refusal may be the echo of our own write, whose answer was lost and which
            # boto3 repeated; and a success may be another's by now on a server that ignores the condition.
            return self.get(key) == data
        raise StorageUnreachable(f"{self.uri}/{key} is being written by others all the time; try again")

    def get(self, key: str) -> bytes:
        full = self._full(key)
        for remaining in reversed(range(ATTEMPTS)):
            try:
                with self._explaining(key):
                    return self._client.get_object(Bucket=self.bucket, Key=full)["Body"].read()
            except StorageUnreachable as error:
                # boto3 repeats a request, but not the reading of a body that broke off.
                if remaining == 0 or not isinstance(error.__cause__, HTTPClientError | IncompleteReadError):
                    raise
        raise AssertionError("unreachable")

    def download(self, key: str, target: Path) -> None:
        full = self._full(key)
        with disk_errors(target, "WORK_DIR"), self._explaining(key):
            self._client.download_file(self.bucket, full, str(target), Config=TRANSFER)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        with self._explaining():
            empty = True
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self._prefix + prefix
            )
            for page in pages:
                empty = empty and not page.get("Contents")
                for entry in page.get("Contents", []):
                    # Consoles leave an empty object "folder/" behind for each folder that was made by hand.
                    if not entry["Key"].endswith("/"):
                        key = entry["Key"].removeprefix(self._prefix)
                        yield StoredObject(key, entry["Size"], entry["LastModified"])
            if empty:
                # Some servers list a missing bucket as an empty one.
                self._require_bucket()

    def delete(self, key: str) -> None:
        full = self._full(key)
        try:
            with self._explaining(key):
                self._client.delete_object(Bucket=self.bucket, Key=full)
        except NotFound:
            return

    def unfinished(self, before: datetime) -> Iterator[Unfinished]:
        with self._explaining():
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self.bucket, Prefix=self._prefix
            )
            for page in pages:
                for upload in page.get("Uploads", []):
                    if upload["Initiated"] < before:
                        key, name = upload["Key"], upload["UploadId"]
                        parts = self._client.list_parts(Bucket=self.bucket, Key=key, UploadId=name).get("Parts", [])
                        touched = max([upload["Initiated"], *(part["LastModified"] for part in parts)])
                        if touched < before:
                            size = sum(part["Size"] for part in parts)
                            yield Unfinished(key.removeprefix(self._prefix), name, touched, size)

    def discard(self, write: Unfinished) -> None:
        full = self._full(write.key)
        with self._explaining():
            self._client.abort_multipart_upload(Bucket=self.bucket, Key=full, UploadId=write.name)

    def _full(self, key: str) -> str:
        return self._prefix + checked_key(key)

    def _exists(self, key: str) -> bool:
        try:
            with self._explaining(key):
                self._client.head_object(Bucket=self.bucket, Key=self._full(key))
        except NotFound:
            return False
        return True

    def _require_bucket(self) -> None:
        """Raises when the bucket is missing, which a missing key alone does not tell."""
        if self._bucket_seen:
            return
        try:
            self._client.head_bucket(Bucket=self.bucket)
        except ClientError as error:
            # Whoever may only use a prefix is refused the bucket itself; it is there all the same.
            if code_of(error) not in REFUSALS:
                raise
        self._bucket_seen = True

    @contextmanager
    def _explaining(self, key: str = "", passing: frozenset[str] = frozenset()) -> Iterator[None]:
        """Turns what boto3 raises in the block into an error of ours. Codes of `passing` go on as they are."""
        try:
            yield
        except (BotoCoreError, Boto3Error, ClientError, ValueError) as raised:
            error = root_of(raised)
            if isinstance(error, ClientError) and code_of(error) in passing:
                raise
            if key and isinstance(error, ClientError) and code_of(error) in NOT_THERE:
                with self._explaining():
                    self._require_bucket()
                raise NotFound(f"{self.uri}/{key} does not exist") from error
            raise explained(error, self.bucket) from error


def _configuration() -> Config:
    """Settings of the client. The style of addressing stays boto3's, which suits AWS and own endpoints alike."""
    return Config(
        retries={
            "mode": "standard",
            "total_max_attempts": int(os.environ.get("AWS_MAX_ATTEMPTS", ATTEMPTS)),
        },
        # boto3's own default sends checksums that many servers other than AWS refuse.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        connect_timeout=5,
        read_timeout=60,
        max_pool_connections=32,
    )
