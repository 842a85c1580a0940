"""Where an image is in data sets: under its address, as the same file or pixels, or as a picture that looks like it."""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from service.artifacts.kinds.dataset import Provenance
from service.dataset.candidates import Reason
from service.dataset.images.duplicates import near_any
from service.dataset.selection import without_fragment
from service.diffusion.looks import Look
from service.lineage.sought import Form, Sought

NEAR = 8
"""Bits in which two looks may differ, where the recipe of a data set does not say it."""
EXACT_DUPLICATES = {Reason.DUP_URL, Reason.DUP_EXACT}
DUPLICATES = EXACT_DUPLICATES | {Reason.DUP_NEAR}


class How(StrEnum):
    """By what an image was recognised, the surest first."""

    ADDRESS = "address"
    PAGE = "page"
    FILE = "file"
    PIXELS = "pixels"
    TAKEN = "taken from another data set"
    LOOK = "look"
    DUPLICATE = "kept in place of a duplicate"


@dataclass(frozen=True)
class KnownDataset:
    """What a data set tells of its images. entries: of all candidates; files: sha256 by path below imagefolder/."""

    path: str
    entries: Sequence[Provenance]
    files: Mapping[str, str]
    parents: Sequence[str]
    recipe: Mapping[str, Any]

    def hashes(self, entry: Provenance) -> set[str]:
        """Of the file as it came, of the pixels, and of the file in the data set, as far as they are known."""
        return {entry.source_sha256, entry.sha256, self.files.get(entry.file_name or "", "")} - {""}


class _Place(NamedTuple):
    """A candidate of a data set."""

    path: str
    rank: int


Recognised = dict[_Place, How]


def look_of_entry(entry: Provenance) -> Look | None:
    """The look of a candidate that was decoded."""
    return Look.parse(f"{entry.phash}:{entry.dhash}:{entry.colour}") if entry.phash else None


def recognised(image: Sought, datasets: Sequence[KnownDataset], *, look_alikes: bool) -> dict[str, dict[int, How]]:
    """By which of their candidates, by rank, data sets have the image, by their path; whether they kept them or not.

    Whatever is known of a candidate that was recognised is looked for too: an image that was named by its address is found
    as a file without one. Looks are compared last, with that of the image and of those, but not of look-alikes in turn.
    """
    forms = {dataset.path: image.in_shape_of(dataset.recipe) for dataset in datasets}
    found: Recognised = {}
    hashes = set(image.hashes)
    while new := dict(_exactly(image, datasets, forms, hashes, found)):
        found |= new
        hashes |= {mark for dataset, entry in _places(datasets, new) for mark in dataset.hashes(entry)}
    if look_alikes:
        found |= dict(_alike(datasets, forms, found))
    found |= dict(_kept(datasets, found, DUPLICATES if look_alikes else EXACT_DUPLICATES))
    by_path: dict[str, dict[int, How]] = {}
    for place, how in found.items():
        by_path.setdefault(place.path, {})[place.rank] = how
    return by_path


def _places(datasets: Sequence[KnownDataset], found: Recognised) -> Iterator[tuple[KnownDataset, Provenance]]:
    for dataset in datasets:
        for entry in dataset.entries:
            if _Place(dataset.path, entry.rank) in found:
                yield dataset, entry


def _exactly(
    image: Sought,
    datasets: Sequence[KnownDataset],
    forms: Mapping[str, Form | None],
    hashes: set[str],
    found: Recognised,
) -> Iterator[tuple[_Place, How]]:
    """Further candidates that are the image, without a doubt."""
    files = {(dataset.path, entry.file_name) for dataset, entry in _places(datasets, found) if entry.file_name}
    for dataset in datasets:
        form = forms[dataset.path]
        wanted = hashes | ({form.sha256} if form else set())
        taken = {name for path, name in files if path in dataset.parents}
        for entry in dataset.entries:
            place = _Place(dataset.path, entry.rank)
            if place in found:
                continue
            if image.addresses & {entry.origin, without_fragment(entry.origin)}:
                yield place, How.ADDRESS
            elif entry.page and entry.page in image.addresses:
                yield place, How.PAGE
            elif (hashed := dataset.hashes(entry) & wanted) and entry.sha256 in hashed:
                yield place, How.PIXELS
            elif hashed:
                yield place, How.FILE
            elif entry.origin in taken:
                yield place, How.TAKEN


def _alike(
    datasets: Sequence[KnownDataset], forms: Mapping[str, Form | None], found: Recognised
) -> Iterator[tuple[_Place, How]]:
    known = [look for _, entry in _places(datasets, found) if (look := look_of_entry(entry))]
    for dataset in datasets:
        form = forms[dataset.path]
        looks = {
            entry.rank: look
            for entry in dataset.entries
            if _Place(dataset.path, entry.rank) not in found and (look := look_of_entry(entry))
        }
        distance = int(dataset.recipe.get("near_distance", NEAR))
        near = near_any(list(looks.values()), [*known, *([form.look] if form else [])], distance)
        for rank, index in zip(looks, near, strict=True):
            if index is not None:
                yield _Place(dataset.path, rank), How.LOOK


def _kept(datasets: Sequence[KnownDataset], found: Recognised, reasons: Set[str]) -> Iterator[tuple[_Place, How]]:
    """Images that a data set kept in place of one that was recognised and left out for one of the reasons."""
    origins = {(dataset.path, entry.kept) for dataset, entry in _places(datasets, found) if entry.reason in reasons}
    for dataset in datasets:
        for entry in dataset.entries:
            place = _Place(dataset.path, entry.rank)
            if entry.reason is None and (dataset.path, entry.origin) in origins and place not in found:
                yield place, How.DUPLICATE
