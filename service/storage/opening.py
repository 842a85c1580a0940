"""Opens a store by its URI."""

import re
from pathlib import Path

from service.exits import BadConfiguration
from service.storage.interface import ObjectStore
from service.storage.keys import checked_key
from service.storage.local import LocalStore

SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):/")


def open_store(uri: str) -> ObjectStore:
    """Opens `s3://bucket/prefix` or a folder. Nothing is contacted before the first use."""
    if uri.startswith("s3://"):
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if not bucket:
            raise BadConfiguration(f"{uri!r} names no bucket; write s3://bucket/prefix")
        # boto3 takes half a second to import; whoever works in a folder need not wait for it.
        from service.storage.s3.store import S3Store

        return S3Store(bucket, checked_key(prefix.strip("/")) if prefix.strip("/") else "")
    if not uri.strip() or SCHEME.match(uri):
        raise BadConfiguration(f"{uri!r} is no place for artifacts; use s3://bucket/prefix or the path of a folder")
    return LocalStore(Path(uri))
