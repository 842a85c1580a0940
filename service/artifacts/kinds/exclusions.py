"""Images that no data set may hold any more: records in the store, which data-prep honours. Nobody ever changes one."""

import hashlib
from collections.abc import Sequence

from pydantic import Field

from service.artifacts import layout
from service.artifacts.documents import Detail, Document
from service.exits import BadData
from service.settings.marks import Mark
from service.storage.interface import NotFound, ObjectStore


class ExcludedImage(Detail):
    """An image by all that it is known by: one of these is enough to leave it out."""

    name: str = Field(description="The image as a person named it.")
    marks: list[Mark] = Field(
        min_length=1,
        description="URLs of the image or of a page; sha256 of its file as it came, or of its pixels; or looks, "
        "`phash:dhash:colour`, for copies in another size or format.",
    )


class Exclusion(Document):
    """Some images, and why they are left out. It tells no time, so that adding the same again changes nothing."""

    images: list[ExcludedImage] = Field(min_length=1, description="The images.")
    reason: str = Field(min_length=1, description="Why; data-prep tells it in report and provenance.")


def add(store: ObjectStore, exclusion: Exclusion) -> str:
    """Keeps the record and returns its path; when it is there already, nothing happens."""
    content = exclusion.to_bytes()
    path = layout.Exclusion(hashlib.sha256(content).hexdigest()[:16]).path
    store.put_if_absent(path, content)
    return path


def read_all(store: ObjectStore) -> list[Exclusion]:
    """All records, in the order of their paths.

    Raises BadData for one that cannot be read, for it might name any image, WrittenByNewer for one of a newer schema.
    """
    found = []
    for key in sorted(stored.key for stored in store.list(layout.EXCLUSIONS)):
        if layout.Exclusion.parse(key):
            try:
                found.append(Exclusion.from_bytes(store.get(key), f"{store.uri}/{key}"))
            except NotFound:
                continue  # deleted since the listing
            except BadData as error:
                raise BadData(f"{error}; which images it leaves out cannot be told: mend it first") from error
    return found


def reasons(exclusions: Sequence[Exclusion]) -> dict[str, str]:
    """Why to leave out whatever is known by a mark; of several reasons the first."""
    found: dict[str, str] = {}
    for exclusion in exclusions:
        for image in exclusion.images:
            for mark in image.marks:
                found.setdefault(mark, exclusion.reason)
    return found
