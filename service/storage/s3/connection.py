"""How an S3 server is spoken to: boto3's own settings, what it leaves open, and credentials that are renewed.

Everything that boto3 reads stays in force: its variables, its configuration file with profiles, roles of pods. What it takes
from a file only, or not at all, are settings of ours (`service.settings.s3`).

Requests are repeated in boto3's `standard` mode, with growing pauses of random length, AWS_MAX_ATTEMPTS times in all; 8.
"""

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import boto3
import botocore.session
import structlog
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from service.exits import AccessDenied, StorageUnreachable
from service.settings.s3 import S3Settings
from service.storage.interface import NotFound
from service.storage.s3.errors import NOT_THERE, REFUSALS, code_of, explained, root_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = structlog.get_logger(__name__)

Answer = TypeVar("Answer")

ATTEMPTS = 8
CONNECTIONS = 64
RAISED = (BotoCoreError, Boto3Error, ClientError, ValueError)


class Connection:
    """A client of one bucket. Errors of boto3 come out as ours; credentials that are refused are read anew once."""

    def __init__(self, bucket: str) -> None:
        self.bucket = bucket
        self.etags_are_md5 = True
        """False once a server was found to tell ETags that are none, without saying that it encrypts."""
        self._bucket_seen = False
        self._lock = threading.Lock()
        with self.explaining():
            self._session = botocore.session.get_session()
            self._client = new_client(self._session)

    def call(
        self, action: "Callable[[S3Client], Answer]", key: str = "", passing: frozenset[str] = frozenset()
    ) -> Answer:
        """What `action` returns. It must be repeatable, and is repeated once with new credentials if there are any.

        Codes of `passing` are raised as they are. `key`: the object that a 404 is about.
        """
        client = self._client
        try:
            return self._tried(action, client, key, passing)
        except AccessDenied:
            if not self._renewed(client):
                raise
        log.info("credentials read anew", bucket=self.bucket)
        return self._tried(action, self._client, key, passing)

    def _tried(
        self, action: "Callable[[S3Client], Answer]", client: "S3Client", key: str, passing: frozenset[str]
    ) -> Answer:
        for number in range(ATTEMPTS):
            try:
                with self.explaining(key, passing):
                    return action(client)
            except (ResponseParserError, HTTPError):
                backoff(number)  # an answer that was damaged on the way, or one about an error that broke off
        raise StorageUnreachable(f"bucket {self.bucket!r} gives answers that make no sense; check AWS_ENDPOINT_URL")

    def _renewed(self, refused: "S3Client") -> bool:
        """Whether there are other credentials than those that were refused, and puts them to use.

        A token is rotated by writing its file anew; boto3 by itself reads a credentials file once and never again.
        """
        with self._lock:
            if self._client is not refused:
                return True  # another thread has done it
            with suppress(*RAISED):
                session = botocore.session.get_session()
                if _credentials(session) != _credentials(self._session):
                    self._session, self._client = session, new_client(session)
                    return True
        return False

    def require_bucket(self) -> None:
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
    def explaining(self, key: str = "", passing: frozenset[str] = frozenset()) -> Iterator[None]:
        """Turns what boto3 raises in the block into an error of ours. Codes of `passing` go on as they are."""
        try:
            yield
        except RAISED as raised:
            error = root_of(raised)
            if isinstance(error, ClientError) and code_of(error) in passing:
                raise
            if key and isinstance(error, ClientError) and code_of(error) in NOT_THERE:
                with self.explaining():
                    self.require_bucket()
                raise NotFound(f"s3://{self.bucket}/{key} does not exist") from error
            raise explained(error, self.bucket) from error


def backoff(number: int) -> None:
    """Waits before the repetition `number`, at random up to a time that doubles; for what boto3 does not repeat itself."""
    time.sleep(random.random() * min(0.05 * 2**number, 20))


def new_client(
    session: botocore.session.Session, attempts: int = ATTEMPTS, settings: S3Settings | None = None
) -> "S3Client":
    """A client that makes so many attempts where the user has set no number, with the settings of the environment."""
    settings = settings or S3Settings()
    configuration = Config(
        retries={
            "mode": session.get_config_variable("retry_mode") or "standard",
            "total_max_attempts": int(session.get_config_variable("max_attempts") or attempts),
        },
        s3={"addressing_style": settings.s3_addressing_style} if settings.s3_addressing_style != "auto" else None,
        # boto3's own default sends checksums that many servers other than AWS refuse.
        request_checksum_calculation=_chosen(session, "request_checksum_calculation") or "when_required",
        response_checksum_validation=_chosen(session, "response_checksum_validation") or "when_required",
        connect_timeout=settings.s3_connect_timeout,
        read_timeout=settings.s3_read_timeout,
        max_pool_connections=CONNECTIONS,
        tcp_keepalive=True,
    )
    # boto3 reads AWS_DEFAULT_REGION and its files; pods are given AWS_REGION; other servers take any.
    region = session.get_config_variable("region") or os.environ.get("AWS_REGION") or "us-east-1"
    return boto3.Session(botocore_session=session).client("s3", config=configuration, region_name=region)


def _chosen(session: botocore.session.Session, name: str) -> Any:
    """What the user set in the environment or in boto3's file, whose own default we do not want."""
    return os.environ.get(f"AWS_{name.upper()}") or session.get_scoped_config().get(name)


def _credentials(session: botocore.session.Session) -> tuple[str | None, ...]:
    credentials = session.get_credentials()
    return tuple(credentials.get_frozen_credentials()) if credentials else ()
