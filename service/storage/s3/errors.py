"""What the many errors of S3 servers mean for the user."""

import os

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
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


def root_of(error: Exception) -> Exception:
    """boto3's transfers wrap the error that says something."""
    inner = error.__cause__ or error.__context__
    if not isinstance(error, ClientError | BotoCoreError) and isinstance(inner, ClientError | BotoCoreError):
        return inner
    return error


def explained(error: Exception, bucket: str) -> ServiceError:
    """The error in one line for the operator of a job, with the exit code that fits."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS"
    where = f"bucket {bucket!r} at {endpoint}"
    reason = " ".join(str(error).split())
    if isinstance(error, NO_CREDENTIALS):
        return AccessDenied(
            f"no usable credentials for {where}: {reason}; "
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the pod a role"
        )
    if isinstance(error, ClientError):
        return _answered(error, bucket, where, reason)
    if isinstance(error, SSLError):
        return StorageUnreachable(f"{where} is not trusted: {reason}; set AWS_CA_BUNDLE to its certificate authority")
    if isinstance(error, WRONG_SETTINGS):
        return BadConfiguration(f"{where}: {reason}; check ARTIFACTS_URI, AWS_ENDPOINT_URL, AWS_REGION and AWS_PROFILE")
    return StorageUnreachable(f"{where} does not answer: {reason}; check AWS_ENDPOINT_URL and the network")


def _answered(error: ClientError, bucket: str, where: str, reason: str) -> ServiceError:
    code = code_of(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
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
