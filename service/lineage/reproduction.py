"""Whether an evaluation, and all that it rests on, comes out the same again: file by file, by the manifests of two stores."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest

from pydantic import Field

from service.artifacts.documents import Detail, Document
from service.artifacts.kinds import evaluation, images, lora, measurements
from service.artifacts.kinds.evaluation import Outcome
from service.artifacts.manifest import Manifest
from service.artifacts.publishing import read_manifest
from service.storage.interface import NotFound, ObjectStore

KINDS = {
    lora.Lora.KIND: "LoRA",
    images.Images.KIND: "pictures",
    measurements.KIND: "measurements",
    evaluation.KIND: "evaluation",
}
"""What is made again, in the order of the work, and what people call it."""


class Part(Detail):
    """An artifact, and what was made in its place."""

    name: str = Field(description="What it is: " + ", ".join(f"`{name}`" for name in KINDS.values()) + ".")
    then: str | None = Field(description="Path of the one of then; null where it is gone.")
    now: str | None = Field(description="Path of the one that was made now, in the other store.")
    files: int = Field(description="Files of both together, by name.")
    different: list[str] = Field(description="Files whose hash is another, or that only one of them has.")

    @property
    def same(self) -> bool:
        """Whether every file has the same hash."""
        return self.then is not None and self.now is not None and not self.different


class Reproduction(Document):
    """What came out when an evaluation, and all that it rests on, was made again."""

    evaluation: str = Field(description="Path of the evaluation of then below ARTIFACTS_URI.")
    store: str = Field(description="The store in which it was made again.")
    parts: list[Part] = Field(description="LoRA, pictures, measurements and evaluation.")
    decision_then: Outcome = Field(description="What was decided then.")
    decision_now: Outcome = Field(description="What was decided now.")
    remarks: list[str] = Field(description="What was not made again, and what may be the cause of a difference.")

    @property
    def same(self) -> bool:
        """Whether every file came out with the same hash."""
        return all(part.same for part in self.parts)


@dataclass(frozen=True)
class Made:
    """An evaluation with its decision, and the manifests of what it rests on, by path."""

    path: str
    decision: Outcome
    manifests: Mapping[str, Manifest]


def ancestry(store: ObjectStore, path: str) -> dict[str, Manifest]:
    """The manifests of an artifact and of all that it was made of, by path, itself first; without what is gone."""
    found = {path: read_manifest(store, path)}
    open_paths = list(found[path].parents)
    while open_paths:
        parent = open_paths.pop(0)
        if parent not in found:
            try:
                found[parent] = read_manifest(store, parent)
            except NotFound:
                continue
            open_paths += found[parent].parents
    return found


def reproduction(then: Made, now: Made, store: str, remarks: list[str]) -> Reproduction:
    """Compares both, kind by kind. store: in which `now` was made; remarks: what is known before of what may differ."""
    parts = [
        _part(name, (then.manifests, old), (now.manifests, new))
        for kind, name in KINDS.items()
        for old, new in zip_longest(_paths(then, kind), _paths(now, kind))
    ]
    same = all(part.same for part in parts)
    causes = [] if same else causes_of_difference(then.manifests[then.path], now.manifests[now.path])
    return Reproduction(
        evaluation=then.path,
        store=store,
        parts=parts,
        decision_then=then.decision,
        decision_now=now.decision,
        remarks=[*remarks, *causes],
    )


def causes_of_difference(then: Manifest, now: Manifest) -> list[str]:
    """Why files may have other hashes, as far as the manifests tell."""
    libraries = [
        f"{name} was {then.libraries.get(name, 'not there')} and is {now.libraries.get(name, 'not there')}"
        for name in sorted(then.libraries.keys() | now.libraries.keys())
        if then.libraries.get(name) != now.libraries.get(name)
    ]
    code = (
        [f"the code was {then.code_version} and is {now.code_version}"] if then.code_version != now.code_version else []
    )
    return [
        *libraries,
        *code,
        "manifests do not tell the device: another GPU or processor, or another number of processes, adds up in another order, "
        "which changes last digits and with them every hash",
    ]


def _paths(made: Made, kind: str) -> list[str]:
    return sorted(path for path, manifest in made.manifests.items() if manifest.kind == kind)


def _part(
    name: str, then: tuple[Mapping[str, Manifest], str | None], now: tuple[Mapping[str, Manifest], str | None]
) -> Part:
    (manifests, old), (new_manifests, new) = then, now
    hashes = _hashes(manifests[old]) if old else {}
    new_hashes = _hashes(new_manifests[new]) if new else {}
    names = sorted(hashes.keys() | new_hashes.keys())
    different = [file for file in names if hashes.get(file) != new_hashes.get(file)]
    return Part(name=name, then=old, now=new, files=len(names), different=different)


def _hashes(manifest: Manifest) -> dict[str, str]:
    return {file.path: file.sha256 for file in manifest.files}
