"""How an S3 server is spoken to: boto3's own settings, what it leaves open, and credentials that are renewed.

Everything that boto3 reads stays in force: its variables, its configuration file with profiles, roles of pods. What it takes
from a file only, or not at all, are settings of ours (`service.settings.s3`).

Requests are repeated by us and not by boto3, whose pauses nobody can interrupt: with growing pauses of random length, at least
AWS_MAX_ATTEMPTS times (8) and for RETRY_SECONDS. Where a bucket is in another region, boto3 follows.
"""

import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import boto3
import botocore.session
import structlog
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from tenacity import RetryCallState, wait_random_exponential

from service import stopping
from service.exits import AccessDenied
from service.settings.s3 import S3Settings
from service.storage.interface import NotFound
from service.storage.patience import LONGEST_PAUSE, Patience
from service.storage.s3.demands import CHECKSUMS, Demands
from service.storage.s3.errors import (
    NONSENSE,
    NOT_THERE,
    code_of,
    explained,
    is_throttled,
    passes,
    refuse_page,
    root_of,
    status_of,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = structlog.get_logger(__name__)

Answer = TypeVar("Answer")

ATTEMPTS = 8
CONNECTIONS = 64
FIRST_PAUSE = 0.05
FIRST_PAUSE_THROTTLED = 1.0
"""Seconds at most, before the first repetition; each further one may be twice as long."""
RAISED = (BotoCoreError, Boto3Error, ClientError, ValueError, *NONSENSE)
# Answers to HEAD have no body; of these the status says enough.
TOLD = frozenset({401, 403, 404})


class Connection:
    """A client of one bucket. Errors of boto3 come out as ours; credentials that are refused are read anew once.

    attempts: where the user has set no number; settings: where they are not those of the environment.
    """

    def __init__(self, bucket: str, settings: S3Settings | None = None, attempts: int = ATTEMPTS) -> None:
        self.bucket = bucket
        self.etags_are_md5 = True
        """False once a server was found to tell ETags that are none, without saying that it encrypts."""
        self._bucket_seen = False
        self._lock = threading.Lock()
        self._settings = settings or S3Settings()
        self._demands = Demands()
        with self.explaining():
            self._session = botocore.session.get_session()
            self._client = self._new_client(self._session)
            self._patience = Patience(
                f"bucket {bucket!r}",
                attempts=int(self._session.get_config_variable("max_attempts") or attempts),
                seconds=self._settings.retry_seconds,
                pause=_pause,
            )

    def _new_client(self, session: botocore.session.Session) -> "S3Client":
        """A client for a session that has none yet: boto3 takes no second one."""
        client = new_client(session, self._settings, checksums=CHECKSUMS in self._demands.known)
        self._demands.heed_in(client)
        client.meta.events.register("response-received.s3", refuse_page)
        return client

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
        with self.explaining(key, passing):
            return self._patience.ask(lambda: self._as_asked(action, client), lambda error: passes(error, passing))

    def _as_asked(self, action: "Callable[[S3Client], Answer]", client: "S3Client") -> Answer:
        """Once, and again with what a refusal asks for."""
        while True:
            heeded = self._demands.known
            # Before each attempt: one that failed for another reason comes back with the client of before.
            client = self._as_demanded(client)
            try:
                return action(client)
            except ClientError as error:
                if not self._demands.learn_from(error, heeded):
                    raise

    def _as_demanded(self, client: "S3Client") -> "S3Client":
        """The client itself, or one that sends the checksums that are asked for."""
        if CHECKSUMS not in self._demands.known or sends_checksums(client):
            return client
        with self._lock:
            if not sends_checksums(self._client):
                self._session = botocore.session.get_session()
                self._client = self._new_client(self._session)
            return self._client

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
                    self._session, self._client = session, self._new_client(session)
                    return True
        return False

    def require_bucket(self) -> None:
        """Raises when the bucket is missing, which a missing key alone does not tell."""
        if not self._bucket_seen:
            # Whoever may only use a prefix is refused the bucket itself; it is there all the same.
            with suppress(AccessDenied):
                self.ask_for_bucket()
            self._bucket_seen = True

    def ask_for_bucket(self) -> Mapping[str, str]:
        """The headers of an answer about the bucket; raises what is wrong with it, or with us, as all other requests do."""

        def ask(client: "S3Client") -> Mapping[str, Any]:
            try:
                answer = client.head_bucket(Bucket=self.bucket)
            except ClientError as error:
                if status_of(error) in TOLD or passes(error):
                    raise
            else:
                if not answer["ResponseMetadata"]["HTTPHeaders"].get("content-type", "").startswith("text/html"):
                    return answer
            return client.list_objects_v2(Bucket=self.bucket, MaxKeys=1)

        headers: Mapping[str, str] = self.call(ask)["ResponseMetadata"]["HTTPHeaders"]
        return headers

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
                self.require_bucket()
                raise NotFound(f"s3://{self.bucket}/{key} does not exist") from error
            raise explained(error, self.bucket) from error


def backoff(number: int) -> None:
    """Waits before the repetition `number`, at random up to a time that doubles, for what is no failure of a request."""
    seconds = random.random() * min(FIRST_PAUSE * 2**number, LONGEST_PAUSE)
    # Who goes on after a request to stop is storing what is finished.
    (time.sleep if stopping.requested() else stopping.pause)(seconds)


def _pause(state: RetryCallState) -> float:
    """Seconds before the next attempt of a request."""
    throttled = is_throttled(state.outcome.exception() if state.outcome else None)
    first = FIRST_PAUSE_THROTTLED if throttled else FIRST_PAUSE
    return wait_random_exponential(multiplier=first, max=LONGEST_PAUSE)(state)


def new_client(session: botocore.session.Session, settings: S3Settings, *, checksums: bool) -> "S3Client":
    """A client that asks once. checksums: whether the server is known to ask for those that boto3 computes."""
    configuration = Config(
        retries={
            "mode": session.get_config_variable("retry_mode") or "standard",
            "total_max_attempts": 1,
        },
        s3={"addressing_style": settings.s3_addressing_style} if settings.s3_addressing_style != "auto" else None,
        # boto3's own default sends checksums that many servers other than AWS refuse.
        request_checksum_calculation=_chosen(session, "request_checksum_calculation")
        or ("when_supported" if checksums else "when_required"),
        response_checksum_validation=_chosen(session, "response_checksum_validation") or "when_required",
        connect_timeout=settings.s3_connect_timeout,
        read_timeout=settings.s3_read_timeout,
        max_pool_connections=CONNECTIONS,
        tcp_keepalive=True,
    )
    # boto3 reads AWS_DEFAULT_REGION and its files; pods are given AWS_REGION; other servers take any.
    region = session.get_config_variable("region") or os.environ.get("AWS_REGION") or "us-east-1"
    return boto3.Session(botocore_session=session).client("s3", config=configuration, region_name=region)


def sends_checksums(client: "S3Client") -> bool:
    """Whether boto3 adds a checksum of its own to what is sent."""
    return getattr(client.meta.config, "request_checksum_calculation", None) == "when_supported"


def _chosen(session: botocore.session.Session, name: str) -> Any:
    """What the user set in the environment or in boto3's file, whose own default we do not want."""
    return os.environ.get(f"AWS_{name.upper()}") or session.get_scoped_config().get(name)


def _credentials(session: botocore.session.Session) -> tuple[str | None, ...]:
    credentials = session.get_credentials()
    return tuple(credentials.get_frozen_credentials()) if credentials else ()
