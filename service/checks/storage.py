"""The place for artifacts: everything the jobs do there is done once, to objects that are gone afterwards."""

import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from service import stopping
from service.checks.result import CheckResult, CheckStatus, failure, ok, result_of, warning
from service.checks.stores import open_impatiently
from service.exits import AccessDenied, BadData, ServiceError
from service.storage.interface import NotFound, ObjectStore
from service.storage.local import LocalStore

if TYPE_CHECKING:
    from service.checks.s3 import S3Probe

WRITTEN = ("object", "exclusive", "conditional", "multipart")
"""What the names of the objects end with."""
CONTENT = b"written by sdlora doctor, which deletes it again\n"


def storage_checks(uri: str) -> Iterator[CheckResult]:
    """A result for each thing that the jobs do in a store. The objects are deleted whatever happens on the way."""
    try:
        store = open_impatiently(uri)
        s3 = _s3_probe(store)
    except ServiceError as error:
        yield failure("storage", error)
        return
    prefix = f"doctor-{uuid.uuid4().hex[:12]}"
    checks = _StoreChecks(store, prefix)
    try:
        if s3 is not None:
            answers = result_of("storage", s3.answers)
            yield answers
            if answers.status == CheckStatus.FAILURE:
                for name in ("write", "read", "missing object", "list", "conditional write", "multipart", "delete"):
                    yield warning(f"storage {name}", "not tried", "mend the storage first, then start doctor again")
                return
        for name, check in (
            ("write", checks.write),
            ("read", checks.read),
            ("missing object", checks.missing),
            ("list", checks.list),
        ):
            stopping.check()
            yield result_of(f"storage {name}", check)
        if s3 is None:
            yield result_of("storage conditional write", checks.exclusive)
        else:
            yield result_of("storage conditional write", lambda: s3.conditional(f"{prefix}-conditional"))
            yield result_of("storage multipart", lambda: s3.multipart(f"{prefix}-multipart"))
        yield result_of("storage delete", checks.delete)
    finally:
        _clean_up(store, prefix)


def _s3_probe(store: ObjectStore) -> "S3Probe | None":
    """What only a bucket is asked; None for a folder."""
    if isinstance(store, LocalStore):
        return None
    from service.checks.s3 import S3Probe  # boto3 takes half a second to import

    return S3Probe.of(store)


def _nothing_to_find(check: str) -> CheckResult:
    return warning(
        check, "not tried, as nothing could be written", "mend `storage write` first, then start doctor again"
    )


def _clean_up(store: ObjectStore, prefix: str) -> None:
    """Deletes what is left, by name: who may not list may delete. Of a store that does not let us, the results say so."""
    with suppress(ServiceError):
        for name in WRITTEN:
            store.delete(f"{prefix}-{name}")


class _StoreChecks:
    """What every kind of store must do."""

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self._store = store
        self._prefix = prefix
        self._key = f"{prefix}-object"
        self._written = False

    def write(self) -> CheckResult:
        try:
            self._store.put(self._key, CONTENT)
        except AccessDenied as error:
            if self._can_be_listed():
                raise AccessDenied(
                    f"{self._store.uri} can be read with these credentials, and not written to; allow "
                    "them s3:PutObject, s3:DeleteObject and s3:AbortMultipartUpload, or use others"
                ) from error
            raise
        self._written = True
        return ok("storage write", f"{self._store.uri} takes objects")

    def _can_be_listed(self) -> bool:
        with suppress(ServiceError):
            list(self._store.list(self._prefix))
            return True
        return False

    def read(self) -> CheckResult:
        try:
            content = self._store.get(self._key)
        except NotFound as error:
            if not self._written:
                return _nothing_to_find("storage read")
            raise BadData(
                f"{self._store.uri} does not give back what was just written: {error}; check the server"
            ) from error
        if content != CONTENT:
            raise BadData(
                f"{self._store.uri} gives back {len(content)} bytes that are not those written; check the server, and the "
                "proxies on the way to it"
            )
        return ok("storage read", "what was written is read back")

    def missing(self) -> CheckResult:
        """Jobs ask for what may not be there yet: a refusal in place of "not found" ends them."""
        try:
            self._store.get(f"{self._prefix}-missing")
        except NotFound:
            return ok("storage missing object", "an object that is not there is told to be missing")
        raise BadData(
            f"{self._store.uri} gives an object that nobody has written; check the server, and the proxies on the way to it"
        )

    def list(self) -> CheckResult:
        listed = {entry.key for entry in self._store.list(self._prefix)}
        if not self._written:
            return _nothing_to_find("storage list")
        if self._key not in listed:
            raise BadData(
                f"{self._store.uri} does not list what was just written; the store must be consistent, as S3 has been "
                "since 2020: use another server"
            )
        return ok("storage list", "what was written is listed")

    def exclusive(self) -> CheckResult:
        """In a folder: of two writers of one key, only the first one wins."""
        key = f"{self._prefix}-exclusive"
        first, second = self._store.put_if_absent(key, b"first"), self._store.put_if_absent(key, b"second")
        if not first or second or self._store.get(key) != b"first":
            return warning(
                "storage conditional write",
                "the folder lets a second writer replace what a first one wrote",
                "let one job of a run work at a time, or use another file system",
            )
        return ok("storage conditional write", "of two writers the first one wins")

    def delete(self) -> CheckResult:
        self._store.delete(self._key)
        try:
            listed = {entry.key for entry in self._store.list(self._prefix)}
        except AccessDenied:
            return ok("storage delete", "is accepted; whether it is done cannot be seen without a listing")
        if self._key in listed:
            return warning(
                "storage delete",
                "a deleted object is still listed",
                "allow s3:DeleteObject; else old checkpoints stay, and so does their bill",
            )
        return ok("storage delete", "what was written is gone")
