"""Opens a store by its URI, and reads a single file that a setting names."""

from pathlib import Path

from service.exits import BadConfiguration, MissingInput
from service.settings.places import checked_place
from service.storage.disk import disk_errors
from service.storage.interface import NotFound, ObjectStore
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


def read_file_at(place: str, setting: str) -> bytes:
    """The content of a file, local or s3://, that the variable `setting` names.

    Raises MissingInput, naming the variable, when it is not there, BadConfiguration for a bucket alone.
    """
    if place.startswith("s3://"):
        folder, _, name = place.rpartition("/")
        if folder in ("s3:", "s3:/") or not name:
            raise BadConfiguration(f"{setting}={place} names no file; write s3://bucket/path/file")
        try:
            return open_store(folder).get(name)
        except NotFound as error:
            raise MissingInput(f"{setting}={place} is an object that does not exist") from error
    file = Path(place).expanduser()
    with disk_errors(file, setting):
        if not file.is_file():
            raise MissingInput(f"{setting}={place} is a file that does not exist")
        return file.read_bytes()
