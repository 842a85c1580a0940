"""Stores as `doctor` opens them: it speaks to them as the jobs do, but that somebody is waiting for the answer."""

from typing import TYPE_CHECKING

from service.settings.s3 import S3Settings
from service.storage.interface import ObjectStore
from service.storage.local import LocalStore
from service.storage.opening import open_store

if TYPE_CHECKING:
    from service.storage.s3.store import S3Store

ATTEMPTS = 3


def open_impatiently(uri: str) -> ObjectStore:
    """The same store as `open_store` gives, which is asked a few times and for a few seconds only."""
    store = open_store(uri)
    return store if isinstance(store, LocalStore) else _impatient(store)


def _impatient(store: ObjectStore) -> "S3Store":
    from service.storage.s3.connection import Connection  # boto3 takes half a second to import
    from service.storage.s3.store import S3Store

    assert isinstance(store, S3Store)
    settings = S3Settings().or_else(s3_connect_timeout=5, s3_read_timeout=30).model_copy(update={"retry_seconds": 0})
    return S3Store(store.bucket, store.prefix, Connection(store.bucket, settings, ATTEMPTS))
