"""Folders and s3:// URIs. What is neither is refused where it is set: a misspelt URI would else become a folder."""

import re
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import AfterValidator

from service.settings.delivery import QUOTES, named

SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+:")
"""Two letters at least: one alone is a drive, or a short name."""
LORA_SUFFIX = ".safetensors"
"""By this end of its name a LoRA file from elsewhere is told from the path of an artifact."""

OF_THE_REGISTRY = "registry:"
"""Before the name of a model: its champion of now."""
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
"""Of a run or a model: what can be a part of every path."""


def checked_place(place: str) -> str:
    """The place itself; raises ValueError when it is neither `s3://bucket/prefix` nor the path of a folder or file."""
    if place.startswith("s3://"):
        bucket, _, prefix = place.removeprefix("s3://").partition("/")
        if not bucket:
            raise ValueError(f"{place!r} names no bucket; write s3://bucket/prefix")
        if prefix.strip("/") and not _stays_below(prefix.strip("/")):
            raise ValueError(f"{place!r} must be a path without '.', '..' or empty parts below the bucket")
    elif not place.strip() or SCHEME.match(place):
        raise ValueError(f"{place!r} is no place for artifacts; use s3://bucket/prefix or the path of a folder")
    elif not place.startswith(("/", "~")) and (quote := next((sign for sign in place if sign in QUOTES), None)):
        raise ValueError(f"{place!r} holds {named(quote)}; write the path without quotes, or from the root on")
    return place


def checked_path(path: Path) -> Path:
    """The path itself; raises ValueError for one that is meant to be something else."""
    if SCHEME.match(str(path)):
        raise ValueError(f"{str(path)!r} is no path on this machine")
    checked_place(str(path))
    return path


def _checked_artifact(path: str) -> str:
    """The path itself; raises ValueError for one that cannot be an artifact's below ARTIFACTS_URI."""
    if SCHEME.match(path) or path.startswith("/") or not _stays_below(path):
        raise ValueError(f"{path!r} is no path below ARTIFACTS_URI; write it as the job that made it says it")
    return path


def _checked_lora(path: str) -> str:
    if path.startswith(OF_THE_REGISTRY):
        if not re.fullmatch(NAME, path.removeprefix(OF_THE_REGISTRY)):
            raise ValueError(f"{path!r} names no model; write {OF_THE_REGISTRY} and the name of one in the registry")
        return path
    return checked_place(path) if path.endswith(LORA_SUFFIX) else _checked_artifact(path)


def _stays_below(path: str) -> bool:
    return str(PurePosixPath(path)) == path and ".." not in path.split("/") and "\\" not in path


Place = Annotated[str, AfterValidator(checked_place)]
LocalPath = Annotated[Path, AfterValidator(checked_path)]
ArtifactPath = Annotated[str, AfterValidator(_checked_artifact)]
LoraPath = Annotated[str, AfterValidator(_checked_lora)]
