"""Objects of S3 to memory and to files. An answer that breaks off is taken up again where it broke."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError

from service.exits import StorageUnreachable
from service.storage.parallel import for_each
from service.storage.s3.bodies import reported_md5
from service.storage.s3.connection import ATTEMPTS, Connection, backoff
from service.storage.s3.errors import ALREADY_THERE, require_object
from service.storage.s3.slices import md5_of

# boto3 repeats a request, but not the reading of a body that broke off.
BROKEN_OFF = (HTTPClientError, IncompleteReadError, ConnectionError)
BLOCK = 1 << 20
IN_ONE_STREAM = 64 << 20
"""Larger objects come in several streams at once."""
RANGE = 16 << 20


def read_whole(connection: Connection, key: str) -> bytes:
    """The content of an object, as the server's MD5 says it is."""
    before = None
    for number in range(ATTEMPTS):
        answer = connection.call(lambda client: client.get_object(Bucket=connection.bucket, Key=key), key)
        require_object(answer, f"s3://{connection.bucket}/{key}")
        try:
            content = answer["Body"].read()
        except BROKEN_OFF:
            backoff(number)
            continue
        # The same content twice is what the server has, and its ETag no MD5.
        if reported_md5(answer) in (None, md5_of(content)) or content == before:
            return content
        before = content
    raise StorageUnreachable(f"s3://{connection.bucket}/{key} does not arrive whole; check the network")


def download_to(connection: Connection, key: str, target: Path) -> None:
    """Writes an object to a file."""
    for _ in range(ATTEMPTS):
        answer = connection.call(lambda client: client.get_object(Bucket=connection.bucket, Key=key), key)
        require_object(answer, f"s3://{connection.bucket}/{key}")
        sink = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            if answer["ContentLength"] <= IN_ONE_STREAM:
                _copy(connection, key, answer, sink=sink, start=0)
            else:
                answer["Body"].close()
                _copy_ranges(connection, key, answer, sink)
            return
        except ClientError:
            continue  # replaced while it was read: from the start
        finally:
            os.close(sink)
    raise StorageUnreachable(f"s3://{connection.bucket}/{key} is being replaced all the time; try again")


def _copy_ranges(connection: Connection, key: str, whole: Mapping[str, Any], sink: int) -> None:
    size = whole["ContentLength"]

    def copy(start: int) -> None:
        end = min(start + RANGE, size)
        part = _asked_for(connection, key, start=start, end=end, etag=whole["ETag"])
        _copy(connection, key, part, sink=sink, start=start)

    for_each(copy, range(0, size, RANGE), f"downloading {key}")


def _copy(connection: Connection, key: str, answer: Mapping[str, Any], *, sink: int, start: int) -> None:
    """Writes the body of an answer at `start`, asking for the rest as often as it breaks off.

    Raises ClientError when the object was replaced meanwhile.
    """
    position, end, etag = start, start + answer["ContentLength"], answer["ETag"]
    reason = "it ends early"
    for number in range(ATTEMPTS):
        if number:
            backoff(number)
            answer = _asked_for(connection, key, start=position, end=end, etag=etag)
        try:
            while block := answer["Body"].read(BLOCK):
                _write(sink, block, position)
                position += len(block)
        except BROKEN_OFF as error:
            reason = str(error)
        if position >= end:
            return
    raise StorageUnreachable(f"s3://{connection.bucket}/{key} breaks off again and again: {reason}; check the network")


def _write(sink: int, block: bytes, position: int) -> None:
    """All of the block: a disk that is nearly full takes a part of it, and refuses the rest when asked again."""
    rest = memoryview(block)
    while rest:
        written = os.pwrite(sink, rest, position)
        rest, position = rest[written:], position + written


def _asked_for(connection: Connection, key: str, *, start: int, end: int, etag: str) -> Mapping[str, Any]:
    return connection.call(
        lambda client: client.get_object(
            Bucket=connection.bucket, Key=key, Range=f"bytes={start}-{end - 1}", IfMatch=etag
        ),
        key,
        passing=ALREADY_THERE,
    )
