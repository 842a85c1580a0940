"""The model hub: whether it answers, what it has, and what its refusals mean."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tenacity import wait_exponential_jitter

from service.exits import AccessDenied, MissingInput, ServiceError, StorageUnreachable
from service.settings.remote import RemoteSettings
from service.storage.patience import Patience

ANSWER_SECONDS = 10
ATTEMPTS = 3
PAUSE = wait_exponential_jitter(multiplier=1, max=15)
"""Seconds before each repetition of a question that the hub did not answer."""

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class HubFile:
    """A file of a model as the hub tells of it: bytes, and the sha256 of a large file or the git blob's sha1 of any other."""

    path: str
    size: int
    sha256: str | None
    sha1: str | None

    def is_whole(self, copy: Path) -> bool:
        """Whether `copy` is what the hub says of the file."""
        if not copy.is_file() or copy.stat().st_size != self.size:
            return False
        with copy.open("rb") as source:
            if self.sha256 is not None:
                return hashlib.file_digest(source, "sha256").hexdigest() == self.sha256
            blob = hashlib.sha1(b"blob %d\0" % self.size)
            while part := source.read(2**20):
                blob.update(part)
        return blob.hexdigest() == self.sha1


def ask_hub(name: str, revision: str, where: str) -> None:
    """Returns when the hub has this revision; asks again where it does not answer. Asks nothing in offline mode.

    where: the variable, the model and its revision, for messages. Raises MissingInput, AccessDenied, or StorageUnreachable for
    a hub that does not answer in the end.
    """
    from huggingface_hub import HfApi, constants

    if not constants.HF_HUB_OFFLINE:
        _patiently(lambda: HfApi().model_info(name, revision=revision, timeout=ANSWER_SECONDS), where)


def files_on_hub(name: str, revision: str, where: str) -> list[HubFile]:
    """All files of a revision. Raises what `ask_hub` does."""
    from huggingface_hub import HfApi

    api = HfApi()
    info = _patiently(
        lambda: api.model_info(name, revision=revision, files_metadata=True, timeout=ANSWER_SECONDS), where
    )
    return [
        HubFile(found.rfilename, found.size or 0, found.lfs.sha256 if found.lfs else None, found.blob_id)
        for found in info.siblings or []
    ]


def download(name: str, revision: str, file: HubFile, target: Path, where: str) -> None:
    """A file of a revision to `target`; what is there of it already is taken for its beginning.

    Raises what `ask_hub` does. Whether it is what the hub says of it is for the caller to see.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    # Not hf_hub_download: what it has of a file is gone with its process.
    url, headers = hf_hub_url(name, file.path, revision=revision), build_hf_headers() | {"Accept-Encoding": "identity"}

    def ask() -> None:
        with target.open("ab") as part:
            if part.tell() > file.size:
                part.truncate(0)
            http_get(url, part, resume_size=part.tell(), headers=headers, expected_size=file.size)

    _patiently(ask, where)


def _patiently(question: Callable[[], Answer], where: str) -> Answer:
    """What the hub answers, in the end."""

    def ask() -> Answer:
        try:
            return question()
        except Exception as error:
            meaning = hub_error(error, where)
            if meaning is None:
                raise
            raise meaning from error

    seconds = RemoteSettings().retry_seconds
    patience = Patience("the model hub", attempts=ATTEMPTS, seconds=seconds, pause=PAUSE, told_after=0)
    return patience.ask(ask, lambda error: isinstance(error, StorageUnreachable))


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
