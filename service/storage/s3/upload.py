"""Large files to S3 in parts. What a broken upload has sent is not sent again.

A part that fails is repeated by boto3. When that does not help, the upload is left as it is: the next `put` of the same file
under the same key, of this process or of another, finds it and sends only the parts that are missing. If none comes, the
retention's sweep frees it after a day.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from botocore.exceptions import ClientError

from service.exits import StorageUnreachable
from service.storage.parallel import for_each
from service.storage.s3.bodies import sent_whole
from service.storage.s3.connection import Connection, sends_checksums
from service.storage.s3.errors import CANNOT, DAMAGED_ON_THE_WAY, NO_UPLOAD, code_of, require_answer
from service.storage.s3.slices import Slice, md5_of, rewound

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef, CompleteMultipartUploadOutputTypeDef

PART = 16 << 20
MOST_PARTS = 10_000
"""S3's limit."""


class Part(NamedTuple):
    """A piece of a file: its number, from 1, where it begins, and its length, both in bytes."""

    number: int
    start: int
    length: int


def upload_in_parts(connection: Connection, key: str, file: Path) -> None:
    """Stores a file of more than one part under a full key of the bucket."""
    parts = parts_of(file.stat().st_size)
    for begun in (_begun(connection, key, file, parts), None):
        upload, sent = begun or (begin_upload(connection, key), {})
        try:
            _send_missing(connection, key, upload=upload, file=file, parts=parts, sent=sent)
            return
        except ClientError as error:
            if code_of(error) not in NO_UPLOAD:
                raise
        # Finished, by ourselves with an answer that was lost, or by another writer of the same file; or it was swept.
        if _stored_etag(connection, key) == _whole_etag(sent):
            return
    raise StorageUnreachable(f"s3://{connection.bucket}/{key}: the server forgets uploads that are under way")


def parts_of(size: int) -> list[Part]:
    """The parts of a file of `size` bytes: of 16 MiB, or of more where S3 would not take so many."""
    length = max(PART, -(-size // MOST_PARTS))
    starts = range(0, size, length)
    return [Part(number, start, min(length, size - start)) for number, start in enumerate(starts, 1)]


def begin_upload(connection: Connection, key: str) -> str:
    """The id of a new upload in parts under a full key of the bucket."""
    answer = connection.call(lambda client: client.create_multipart_upload(Bucket=connection.bucket, Key=key))
    require_answer(answer, "UploadId", f"s3://{connection.bucket}/{key}")
    return answer["UploadId"]


def send_part(
    connection: Connection, key: str, upload: str, number: int, body: bytes | Slice
) -> "CompletedPartTypeDef":
    """Sends one part of an upload; what its end says of it. Raises ClientError for an upload that is gone."""
    answer = sent_whole(
        connection,
        lambda: connection.call(
            lambda client: client.upload_part(
                Bucket=connection.bucket, Key=key, UploadId=upload, PartNumber=number, Body=rewound(body)
            ),
            passing=NO_UPLOAD | DAMAGED_ON_THE_WAY,
        ),
        lambda: body.md5() if isinstance(body, Slice) else md5_of(body),
        f"part {number} of s3://{connection.bucket}/{key}",
    )
    return _completed(number, answer)


def complete_upload(connection: Connection, key: str, upload: str, sent: "Mapping[int, CompletedPartTypeDef]") -> None:
    """Ends an upload: its parts, by number, become an object. Raises ClientError for one that is gone."""

    def complete(client: "S3Client") -> "CompleteMultipartUploadOutputTypeDef":
        listed = [sent[number] for number in sorted(sent)]
        if not sends_checksums(client):
            # A server that was not given any may tell some all the same, and take none back.
            listed = [{"PartNumber": part["PartNumber"], "ETag": part["ETag"]} for part in listed]
        return client.complete_multipart_upload(
            Bucket=connection.bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": listed}
        )

    connection.call(complete, passing=NO_UPLOAD)


def _begun(
    connection: Connection, key: str, file: Path, parts: Sequence[Part]
) -> "tuple[str, dict[int, CompletedPartTypeDef]] | None":
    """An upload of this very file that was broken off, and the parts that it has."""
    for upload in _uploads_of(connection, key):
        found: dict[int, CompletedPartTypeDef] = {}
        for stored in _parts_in(connection, key, upload):
            number, size = stored["PartNumber"], stored["Size"]
            if number > len(parts) or size != parts[number - 1].length:
                break
            with Slice(file, parts[number - 1].start, size) as body:
                if stored["ETag"].strip('"') != body.md5():
                    break
            found[number] = _completed(number, stored)
        else:
            if found:
                return upload, found
    return None


def _completed(number: int, answer: Mapping[str, Any]) -> "CompletedPartTypeDef":
    """What the end of the upload says of a part: its ETag, and the checksums that the server has of it."""
    checksums = {name: value for name, value in answer.items() if name.startswith("Checksum")}
    return cast("CompletedPartTypeDef", {"PartNumber": number, "ETag": answer["ETag"], **checksums})


def _uploads_of(connection: Connection, key: str) -> list[str]:
    try:
        answer = connection.call(
            lambda client: client.list_multipart_uploads(Bucket=connection.bucket, Prefix=key),
            passing=CANNOT | NO_UPLOAD,
        )
    except ClientError:
        return []  # a server that cannot tell: everything is sent again
    return [upload["UploadId"] for upload in answer.get("Uploads", []) if upload["Key"] == key]


def _parts_in(connection: Connection, key: str, upload: str) -> Iterator[Mapping[str, Any]]:
    """Each part that an upload has, as the server lists it; none when it is gone by now."""
    marker = 0
    while True:
        try:
            page = connection.call(
                lambda client, marker=marker: client.list_parts(  # type: ignore[misc]
                    Bucket=connection.bucket, Key=key, UploadId=upload, PartNumberMarker=marker
                ),
                passing=NO_UPLOAD | CANNOT,
            )
        except ClientError:
            return
        yield from page.get("Parts", [])
        before, marker = marker, max([marker, *(part["PartNumber"] for part in page.get("Parts", []))])
        if not page.get("IsTruncated") or marker == before:
            return


def _send_missing(
    connection: Connection,
    key: str,
    *,
    upload: str,
    file: Path,
    parts: Sequence[Part],
    sent: "dict[int, CompletedPartTypeDef]",
) -> None:
    """Sends the parts that are not in `sent`, adds them, and completes the upload."""

    def send(part: Part) -> None:
        with Slice(file, part.start, part.length) as body:
            sent[part.number] = send_part(connection, key, upload, part.number, body)

    for_each(send, [part for part in parts if part.number not in sent], f"uploading {file.name}")
    complete_upload(connection, key, upload, sent)


def _stored_etag(connection: Connection, key: str) -> str | None:
    page = connection.call(lambda client: client.list_objects_v2(Bucket=connection.bucket, Prefix=key, MaxKeys=1))
    return next((entry["ETag"].strip('"') for entry in page.get("Contents", []) if entry["Key"] == key), None)


def _whole_etag(sent: "Mapping[int, CompletedPartTypeDef]") -> str:
    """The ETag that S3 gives to an object of these parts."""
    digests = b"".join(bytes.fromhex(sent[number]["ETag"].strip('"')) for number in sorted(sent))
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(sent)}"
