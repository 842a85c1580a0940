"""The images of a data set as its tables tell them, read without downloading a single picture."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import Field

from service.artifacts.documents import Detail
from service.artifacts.fetching import read_file
from service.artifacts.kinds.dataset import (
    IMAGEFOLDER,
    METADATA,
    PROVENANCE,
    SPLITS,
    Dataset,
    Provenance,
    Split,
    captions_of,
    host_of,
    metadata_name,
    provenance_of,
)
from service.artifacts.manifest import Manifest
from service.artifacts.publishing import read_manifest
from service.exits import BadData
from service.storage.interface import ObjectStore


class ListedImage(Detail):
    """An image of a data set, with where it came from as far as that is known."""

    sha256: str = Field(description="Hash of its pixels; empty where the data set does not tell it.")
    file_sha256: str = Field(description="Hash of its file in the data set.")
    file_name: str = Field(description="Its file below imagefolder/.")
    split: Split = Field(description="Whether it is trained on, or held out.")
    caption: str = Field(description="Its caption.")
    origin: str | None = Field(description="Address or path that it came from.")
    licence: str | None = Field(description="Its licence, as the source told it.")

    @property
    def host(self) -> str:
        """The host that it came from; empty for a file, and where nothing is known."""
        return host_of(self.origin or "")


@dataclass(frozen=True)
class Listing:
    """A data set: its path, its images in the order of its tables, and by origin why it left out other candidates."""

    path: str
    images: tuple[ListedImage, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)


def provenance(store: ObjectStore, path: str, manifest: Manifest) -> list[Provenance]:
    """Where the candidates of the data set at `path` came from; empty for a data set that was made without."""
    if PROVENANCE not in {file.path for file in manifest.files}:
        return []
    return provenance_of(read_file(store, path, PROVENANCE), path)


def file_hashes(manifest: Manifest) -> dict[str, str]:
    """sha256 of the files below imagefolder/, by their path there."""
    prefix = f"{IMAGEFOLDER}/"
    return {file.path.removeprefix(prefix): file.sha256 for file in manifest.files if file.path.startswith(prefix)}


def listing(store: ObjectStore, path: str) -> Listing:
    """The images of the data set at `path`.

    Raises NotFound without one, BadConfiguration for another kind of artifact, BadData for tables that are damaged.
    """
    Dataset.read(store, path)
    manifest = read_manifest(store, path)
    files = file_hashes(manifest)
    candidates = provenance(store, path, manifest)
    entries = {entry.file_name: entry for entry in candidates if entry.file_name}
    images = []
    for split in SPLITS:
        for name, caption in captions_of(read_file(store, path, metadata_name(split)), path).items():
            file_name = f"{split}/{name}"
            if file_name not in files:
                raise BadData(f"{file_name} stands in {METADATA} of {path} and does not exist")
            entry = entries.get(file_name)
            images.append(
                ListedImage(
                    sha256=entry.sha256 if entry else "",
                    file_sha256=files[file_name],
                    file_name=file_name,
                    split=split,
                    caption=caption,
                    origin=entry.origin if entry else None,
                    licence=entry.licence if entry else None,
                )
            )
    left_out = {entry.origin: entry.reason for entry in candidates if entry.reason}
    return Listing(path=path, images=tuple(images), left_out=left_out)
