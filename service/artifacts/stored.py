"""What must be true of an artifact's files, in the store and in copies of them."""

from dataclasses import dataclass
from pathlib import Path

from service.artifacts.manifest import MANIFEST_NAME, FileEntry, Manifest, sha256_of
from service.exits import BadData
from service.stopping import StopCheck
from service.storage.interface import ObjectStore
from service.storage.parallel import for_each


@dataclass(frozen=True)
class Stored:
    """An artifact in its store. An empty path means the store's root."""

    store: ObjectStore
    path: str
    manifest: Manifest

    @property
    def name(self) -> str:
        """Where it is, for messages."""
        return name_of(self.store, self.path)

    def key(self, file: FileEntry) -> str:
        """The key of a file."""
        return key_of(self.path, self.manifest.name_of(file))

    def compare_sizes(self) -> None:
        """Finds missing and cut-off files by one listing, before gigabytes are downloaded for nothing: raises BadData."""
        sizes = {entry.key: entry.size for entry in self.store.list(key_of(self.path, ""))}
        for file in self.manifest.files:
            size = sizes.get(self.key(file))
            if size is None:
                raise self.damaged(f"{file.path} is missing")
            if size != file.size:
                raise self.damaged(f"{file.path} has {size} bytes instead of {file.size}")

    def check_folder(self, folder: Path, stop_check: StopCheck) -> None:
        """Raises BadData unless all files of the artifact are in `folder` as the manifest says; calls `stop_check` between."""
        for_each(
            lambda file: self.check(file, folder / file.path), self.manifest.files, f"verifying {self.path}", stop_check
        )

    def check(self, file: FileEntry, copy: Path) -> None:
        """Raises BadData unless `copy` is what the manifest says of the file."""
        if not copy.is_file():
            raise self.damaged(f"{file.path} is missing")
        if (size := copy.stat().st_size) != file.size:
            raise self.damaged(f"{file.path} has {size} bytes instead of {file.size}")
        if (sha256 := sha256_of(copy)) != file.sha256:
            raise self.damaged(f"{file.path} has sha256 {sha256} instead of {file.sha256}")

    def damaged(self, what: str) -> BadData:
        """The error for a file that is not as it should be."""
        return BadData(
            f"artifact {self.name} is damaged: {what}; delete its {MANIFEST_NAME} and run the job that made it again"
        )


def key_of(path: str, name: str) -> str:
    """The key of a name below an artifact's path; with an empty name, the prefix of all of them."""
    return f"{path}/{name}" if path else name


def name_of(store: ObjectStore, path: str) -> str:
    """An artifact's place, for messages."""
    return f"{store.uri}/{path}" if path else store.uri
