"""What the many errors of S3 servers mean for the user."""

import os
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    InvalidConfigError,
    InvalidRegionError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    SSLError,
    SSOError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)
from botocore.exceptions import ConnectionError as NoConnection
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from service.exits import AccessDenied, BadConfiguration, MissingInput, ServiceError, StorageUnreachable

NOT_THERE = frozenset({"NoSuchKey", "404", "NotFound"})
ALREADY_THERE = frozenset({"PreconditionFailed", "412"})
CONFLICT = frozenset({"ConditionalRequestConflict", "409"})
NOT_IMPLEMENTED = frozenset({"NotImplemented", "501"})
# Some servers refuse a header that they do not know, in place of ignoring it.
NO_CONDITIONS = NOT_IMPLEMENTED | {"InvalidRequest", "InvalidArgument"}
CANNOT = NOT_IMPLEMENTED | {"MethodNotAllowed", "405"}
# The number stands for an answer whose body did not arrive whole.
NO_UPLOAD = frozenset({"NoSuchUpload", "404"})
DAMAGED_ON_THE_WAY = frozenset({"BadDigest", "InvalidDigest", "IncompleteBody", "XAmzContentSHA256Mismatch"})

REFUSALS = frozenset(
    {"401", "403", "AccessDenied", "InvalidAccessKeyId", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"}
)
WRONG_REGION = frozenset(
    {
        "PermanentRedirect",
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
        "InvalidRegionName",
        "InvalidLocationConstraint",
    }
)
FULL = frozenset({"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "InsufficientCapacity", "507"})
FULL_WORDS = ("cap exceeded", "quota", "storage is full", "insufficient storage")
"""Of servers that have no code of their own for it; some say so with 403."""
TOO_LARGE = frozenset({"EntityTooLarge", "413"})
THROTTLING = frozenset(
    {
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "RequestThrottled",
        "RequestLimitExceeded",
        "BandwidthLimitExceeded",
        "TooManyRequests",
        "TooManyRequestsException",
    }
)
"""The server asks for longer pauses."""
PASSING = THROTTLING | {"RequestTimeout", "RequestTimeoutException", "PriorRequestNotComplete"}
PASSING_STATUS = frozenset({429, 500, 502, 503, 504})
NONSENSE = (ResponseParserError, HTTPError)
"""An answer that was damaged on the way, or one about an error that broke off; or it comes from no S3 server."""
NO_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
    SSOError,
)
WRONG_SETTINGS = (ProfileNotFound, ParamValidationError, InvalidConfigError, InvalidRegionError, ValueError)


def code_of(error: ClientError) -> str:
    """The server's name for the error; for an answer without a body, its status."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: ClientError) -> int:
    """The HTTP status of the answer; 0 where there is none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def passes(error: BaseException, passing: frozenset[str] = frozenset()) -> bool:
    """Whether the same request may succeed a little later. The codes of `passing` are answers, and no failures."""
    if isinstance(error, ClientError):
        if code_of(error) in passing | FULL:
            return False
        return status_of(error) in PASSING_STATUS or code_of(error) in PASSING
    if isinstance(error, SSLError):
        return "CERTIFICATE_VERIFY_FAILED" not in str(error)
    return isinstance(error, (NoConnection, HTTPClientError, *NONSENSE))


def is_throttled(error: BaseException | None) -> bool:
    """Whether the server asks for longer pauses."""
    return isinstance(error, ClientError) and (code_of(error) in THROTTLING or status_of(error) == 429)


def refuse_page(response_dict: Mapping[str, Any] | None, **_: Any) -> None:
    """Raises BadConfiguration for a page for people, as the port of a console gives in answer to anything.

    Raises ResponseParserError, upon which the request is repeated, for the page of a server of S3. So Swift answers a write
    that it has not made, because another one of the same key and the same moment is the newer.

    For the event of boto3 with the answer as it came: boto3 goes on to take it for a failure of the server, or for an
    empty listing.
    """
    if response_dict is not None and response_dict["status_code"] < 300 and isinstance(response_dict["body"], bytes):
        text = response_dict["body"][:1000].decode("latin-1").lower()
        if "<html" in text or "<!doctype html" in text:
            if "x-amz-request-id" in response_dict["headers"]:
                raise ResponseParserError(f"a web page in place of an answer, {text[:300]!r}")
            raise _no_server(_endpoint())


def require_object(answer: Mapping[str, Any], where: str) -> None:
    """Raises BadConfiguration for a page in the place of an object, where it is not one that was stored."""
    kind = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("content-type", "")
    if "ETag" not in answer and kind.startswith("text/html"):
        raise _no_server(where)


def require_answer(answer: Mapping[str, Any], member: str, where: str) -> None:
    """Raises StorageUnreachable where a member is missing that no server of S3 leaves out."""
    if member not in answer:
        raise StorageUnreachable(f"what answers for {where} leaves out {member}; check AWS_ENDPOINT_URL")


def _no_server(where: str) -> BadConfiguration:
    return BadConfiguration(
        f"what answers for {where} is no S3 server, but gives a web page; AWS_ENDPOINT_URL may name the port of its console"
    )


def _endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS"


def root_of(error: Exception) -> Exception:
    """boto3's transfers wrap the error that says something."""
    inner = error.__cause__ or error.__context__
    if not isinstance(error, ClientError | BotoCoreError) and isinstance(inner, ClientError | BotoCoreError):
        return inner
    return error


def explained(error: Exception, bucket: str) -> ServiceError:
    """The error in one line for the operator of a job, with the exit code that fits."""
    where = f"bucket {bucket!r} at {_endpoint()}"
    # boto3 is not asked to repeat anything, and says that it did not.
    reason = " ".join(str(error).replace(" (reached max retries: 0)", "").split())
    if isinstance(error, NO_CREDENTIALS):
        return AccessDenied(
            f"no usable credentials for {where}: {reason}; "
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the pod a role"
        )
    if isinstance(error, ClientError):
        return _answered(error, bucket, where, reason)
    if isinstance(error, NONSENSE):
        return StorageUnreachable(f"{where} gives answers that make no sense: {reason[:300]}; check AWS_ENDPOINT_URL")
    if isinstance(error, SSLError):
        return StorageUnreachable(f"{where} is not trusted: {reason}; set AWS_CA_BUNDLE to its certificate authority")
    if isinstance(error, WRONG_SETTINGS):
        return BadConfiguration(f"{where}: {reason}; check ARTIFACTS_URI, AWS_ENDPOINT_URL, AWS_REGION and AWS_PROFILE")
    return StorageUnreachable(f"{where} does not answer: {reason}; check AWS_ENDPOINT_URL and the network")


def _answered(error: ClientError, bucket: str, where: str, reason: str) -> ServiceError:
    code, status = code_of(error), status_of(error)
    if code in FULL or status == 507 or any(words in reason.lower() for words in FULL_WORDS):
        return StorageUnreachable(f"{where} is full: {reason}; free space there, or raise its quota or cap")
    if code in TOO_LARGE or status == 413:
        return StorageUnreachable(
            f"{where} takes no object of this size: {reason}; raise its quota, or the limit of the proxy before it (of "
            "nginx, client_max_body_size)"
        )
    # A key of the wrong length is no signature that failed, to some.
    if status in (401, 403) or code in REFUSALS or (status == 400 and "access key" in reason.lower()):
        return AccessDenied(
            f"{where} refused the credentials: {reason}; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
            "AWS_SESSION_TOKEN, the clock, and that they may list (s3:ListBucket, without which a missing object is refused as "
            "well), read and write the bucket"
        )
    if code in WRONG_REGION:
        return BadConfiguration(f"{where} is in another region: {reason}; set AWS_REGION to the bucket's")
    if status == 404:
        return MissingInput(f"bucket {bucket!r} does not exist ({where}); create it, or correct ARTIFACTS_URI")
    return StorageUnreachable(f"{where} failed: {reason}; try again later, or check the server")
