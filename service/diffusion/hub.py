"""The model hub: whether it answers, and what its refusals mean."""

from collections.abc import Iterator
from pathlib import Path

from tenacity import wait_exponential_jitter

from service.exits import AccessDenied, MissingInput, ServiceError, StorageUnreachable
from service.settings.remote import RemoteSettings
from service.storage.patience import Patience

ANSWER_SECONDS = 10
ATTEMPTS = 3
PAUSE = wait_exponential_jitter(multiplier=1, max=15)
"""Seconds before each repetition of a question that the hub did not answer."""


def ask_hub(name: str, revision: str, where: str) -> None:
    """Returns when the hub has this revision; asks again where it does not answer. Asks nothing in offline mode.

    where: the variable, the model and its revision, for messages. Raises MissingInput, AccessDenied, or StorageUnreachable for
    a hub that does not answer in the end.
    """
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        return

    def ask() -> None:
        try:
            HfApi().model_info(name, revision=revision, timeout=ANSWER_SECONDS)
        except Exception as error:
            meaning = hub_error(error, where)
            if meaning is None:
                raise
            raise meaning from error

    seconds = RemoteSettings().retry_seconds
    patience = Patience("the model hub", attempts=ATTEMPTS, seconds=seconds, pause=PAUSE, told_after=0)
    patience.ask(ask, lambda error: isinstance(error, StorageUnreachable))


def in_cache(name: str, revision: str) -> bool:
    """Whether the hub's cache has files of this revision."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE, "models--" + name.replace("/", "--"), "snapshots", revision).is_dir()


def hub_error(error: BaseException, where: str) -> ServiceError | None:
    """What a failure of a library that loads from the hub comes down to; None where the hub has no part in it."""
    import httpx2
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    for cause in _causes(error):
        if isinstance(cause, GatedRepoError):
            return AccessDenied(f"{where} is gated; accept its licence on the hub, and set HF_TOKEN")
        if isinstance(cause, RepositoryNotFoundError | RevisionNotFoundError):
            return MissingInput(
                f"{where} is not on the hub, or closed to us; correct the name, give {where.partition('=')[0]}_REVISION with "
                "it, or set HF_TOKEN"
            )
        if isinstance(cause, EntryNotFoundError) and not isinstance(cause, LocalEntryNotFoundError):
            return MissingInput(f"{where} lacks a file on the hub: {_line(cause)}")
        if isinstance(cause, HfHubHTTPError) and cause.response is not None:
            return _refusal(cause.response.status_code, where, _line(cause))
        if isinstance(cause, httpx2.TransportError | ConnectionError) or "Consistency check failed" in str(cause):
            return _unreachable(where, _line(cause) or type(cause).__name__)
    return None


def _refusal(status: int, where: str, reason: str) -> ServiceError:
    if status in (401, 403):
        return AccessDenied(f"{where} is refused by the hub: {reason}; set HF_TOKEN to one that may read it")
    if status == 404:
        return MissingInput(f"{where} is not on the hub: {reason}")
    return _unreachable(where, reason)


def _unreachable(where: str, reason: str) -> StorageUnreachable:
    return StorageUnreachable(
        f"{where} is not in the cache, and the hub does not answer as it should: {reason}; start the job again, or use a "
        "folder or an s3:// mirror where there is no network"
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those that it came from, the outermost first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
