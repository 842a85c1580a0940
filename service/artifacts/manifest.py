"""The list that makes a folder an artifact: what is in it, what it was made of, and by which code."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import to_jsonable_python

from service.artifacts.code import code_version, distribution_version
from service.exits import BadData, MissingInput
from service.stopping import StopCheck, never_stop
from service.storage.disk import disk_errors
from service.storage.keys import TEMPORARY, is_safe
from service.storage.parallel import for_each

MANIFEST_NAME = "MANIFEST.json"
KNOWN_SCHEMA = 1
"""Highest schema version of a manifest that this program reads, and the one that it writes."""
CLAIM = "WRITER-"
BESIDE = "FILES-"
OF_WRITERS = re.compile(rf"({CLAIM}|{BESIDE})[0-9a-f]{{16}}(/|$)")
"""Names inside an artifact's folder that are its writers' own, see `publishing`; none of its files has one."""

LIBRARIES = ("accelerate", "boto3", "datasets", "diffusers", "numpy", "peft", "pillow", "torch", "transformers")


def _stays_inside(path: str) -> str:
    if not is_safe(path):
        raise ValueError(f"{path!r} is no path inside an artifact")
    return path


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class FileEntry:
    """A file of an artifact: its path below the artifact, its size in bytes, its sha256 in hex.

    A dataclass, not a model: a large data set has hundreds of thousands of them, and a model of each takes a kilobyte.
    """

    path: Annotated[str, AfterValidator(_stays_inside)]
    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Manifest(BaseModel):
    """What an artifact is. It tells no time, so that publishing the same thing again gives the same bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = Field(1, description="Version of the manifest's format.")
    kind: str = Field(min_length=1, description="What it is: dataset, lora, …")
    version: str = Field(description="Hash of the kind and of the files' paths, sizes and contents.")
    files: tuple[FileEntry, ...] = Field(description="Every file.")
    kind_schema: int = Field(1, ge=1, description="Version of the kind's own format; left out while it is 1.")
    folder: str = Field(
        "", description="Where below the artifact's path the files are; left out where they are right there."
    )
    parents: list[str] = Field(default_factory=list, description="Paths of the artifacts that it was made of.")
    settings: dict[str, Any] = Field(default_factory=dict, description="The recipe: all that decided what it is.")
    code_version: str = Field(description="Version and commit of this program.")
    libraries: dict[str, str] = Field(description="Versions of the libraries that shape a result.")

    @model_validator(mode="after")
    def _is_consistent(self) -> "Manifest":
        paths = [file.path for file in self.files]
        if len(set(paths)) != len(paths):
            raise ValueError("a file is listed twice")
        if MANIFEST_NAME in paths:
            raise ValueError("the manifest lists itself")
        if self.folder not in ("", f"{BESIDE}{self.version}"):
            raise ValueError(f"{self.folder!r} is no place for its files")
        if self.version != content_version(self.kind, self.files):
            raise ValueError(f"version {self.version!r} is not the hash of the listed files")
        return self

    def to_bytes(self) -> bytes:
        """The canonical form: sorted keys, indented, one newline at the end."""
        usual = {"folder": "", "kind_schema": 1}
        content = self.model_dump(
            mode="json", exclude={name for name, value in usual.items() if getattr(self, name) == value}
        )
        return (json.dumps(content, sort_keys=True, indent=2, ensure_ascii=False) + "\n").encode()

    def name_of(self, file: FileEntry) -> str:
        """The name below the artifact's path under which the store has a file."""
        return f"{self.folder}/{file.path}" if self.folder else file.path


def content_version(kind: str, files: Iterable[FileEntry]) -> str:
    """16 hex digits that stand for the kind and the files' paths, sizes and contents, whatever made them."""
    content = [kind, sorted([file.path, file.size, file.sha256] for file in files)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def describe(
    folder: Path,
    *,
    kind: str,
    parents: Sequence[str],
    settings: Mapping[str, Any],
    kind_schema: int = 1,
    stop_check: StopCheck = never_stop,
) -> Manifest:
    """The manifest of a folder as it is now. A manifest that lies in it is left out: it is about to be replaced.

    `stop_check` is called before each file is read.
    """
    if not folder.is_dir():
        raise MissingInput(f"{folder} is no folder; there is nothing to publish as {kind}")
    with disk_errors(folder, "WORK_DIR"):
        paths = sorted(
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.is_file() and not path.name.startswith(TEMPORARY)
        )
        paths = [path for path in paths if path != MANIFEST_NAME]
        for path in paths:
            if not is_safe(path) or OF_WRITERS.match(path):
                raise BadData(f"{folder} holds a file named {path!r}, which cannot be stored; rename it")
        entries: dict[str, FileEntry] = {}
        for_each(
            lambda path: entries.update({path: entry_of(folder, path)}), paths, f"reading {folder.name}", stop_check
        )
        files = tuple(entries[path] for path in paths)
    if not files:
        raise BadData(f"{folder} is empty; there is nothing to publish as {kind}")
    return Manifest(
        kind=kind,
        kind_schema=kind_schema,
        version=content_version(kind, files),
        files=files,
        parents=list(parents),
        settings=to_jsonable_python(dict(settings), inf_nan_mode="strings"),
        code_version=code_version(),
        libraries=library_versions(),
    )


def entry_of(folder: Path, path: str) -> FileEntry:
    """Size and sha256 of a file of `folder`, read once."""
    file = folder / path
    return FileEntry(path=path, size=file.stat().st_size, sha256=sha256_of(file))


def sha256_of(file: Path) -> str:
    """Of a file's content, in hex."""
    with file.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def library_versions() -> dict[str, str]:
    """Versions of the libraries that shape a result, read from their metadata, because importing them takes seconds."""
    return {name: version for name in LIBRARIES if (version := distribution_version(name))}
