"""Opens a store by its URI."""

from pathlib import Path

from service.exits import BadConfiguration
from service.settings.places import checked_place
from service.storage.interface import ObjectStore
from service.storage.keys import checked_key
from service.storage.local import LocalStore


def open_store(uri: str) -> ObjectStore:
    """Opens `s3://bucket/prefix` or a folder. Nothing is contacted before the first use."""
    try:
        checked_place(uri)
    except ValueError as error:
        raise BadConfiguration(str(error)) from error
    if uri.startswith("s3://"):
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        # boto3 takes half a second to import; whoever works in a folder need not wait for it.
        from service.storage.s3.store import S3Store

        return S3Store(bucket, checked_key(prefix.strip("/")) if prefix.strip("/") else "")
    return LocalStore(Path(uri))
