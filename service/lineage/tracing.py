"""From an image to all that descends from it: data sets, LoRAs, champions, drawn pictures, evaluations."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

from pydantic import Field

from service.artifacts import layout
from service.artifacts.documents import Detail, Document
from service.artifacts.kinds import evaluation, images, lora, samples
from service.artifacts.kinds.dataset import Dataset, Provenance
from service.artifacts.kinds.exclusions import ExcludedImage, Exclusion
from service.artifacts.kinds.registry import Entry
from service.artifacts.manifest import Manifest
from service.artifacts.publishing import list_artifacts, read_manifest
from service.dataset.selection import without_fragment
from service.exits import BadData
from service.lineage.listing import file_hashes, provenance
from service.lineage.recognition import How, KnownDataset, look_of_entry, recognised
from service.lineage.sought import Sought
from service.settings.marks import is_mark
from service.storage.interface import NotFound, ObjectStore
from service.storage.parallel import StopCheck, for_each

NAMED_IN_RECIPES = ("dataset", "lora")
"""Entries of a recipe that name what an artifact was made of, besides its parents."""
PNG = ".png"


class TracedImage(Detail):
    """A candidate of a data set that is the image, or looks like it."""

    origin: str = Field(description="Address or path under which the data set met it.")
    how: How = Field(description="By what it was recognised.")
    file_name: str | None = Field(description="Its file below imagefolder/; null where it was left out.")
    reason: str | None = Field(description="Why it was left out.")
    marks: list[str] = Field(description="All that it is known by, as DATA_PREP_EXCLUDE takes it.")


class TracedDataset(Detail):
    """A data set that met the image, or that was made of pictures which descend from it."""

    path: str = Field(description="Its path below ARTIFACTS_URI.")
    images: list[TracedImage] = Field(description="The candidates that were recognised.")
    holds: bool = Field(description="Whether it holds the image; otherwise it left it out.")


class Champion(Detail):
    """An entry of the registry with a LoRA that descends from the image."""

    model: str = Field(description="Name of the model.")
    number: int = Field(description="Number of the entry.")
    lora: str = Field(description="Path of the LoRA.")
    reigns: bool = Field(description="Whether it is the newest entry of the model: the champion of now.")


class Drawn(Detail):
    """Pictures that were drawn with a LoRA that descends from the image."""

    path: str = Field(description="Path of the artifact.")
    pictures: list[str] = Field(description="Its files.")


class Trace(Document):
    """All in the store that descends from an image, each list sorted by path."""

    image: str = Field(description="The image as it was named.")
    marks: list[str] = Field(description="What it was looked for by.")
    datasets: list[TracedDataset] = Field(description="Data sets that met it.")
    loras: list[str] = Field(description="LoRAs that were trained on one that holds it.")
    champions: list[Champion] = Field(description="Where the registry names one of these.")
    drawn: list[Drawn] = Field(description="Pictures that were drawn with one of these.")
    evaluations: list[str] = Field(description="Evaluations of one of these, or by such a data set.")
    others: list[str] = Field(description="Checkpoints, measurements and what else descends from it.")
    unreadable: list[str] = Field(
        description="What could not be read, with the reason: it may descend from it as well."
    )

    @property
    def descends(self) -> bool:
        """Whether anything holds the image or was made of what does."""
        return any(dataset.holds for dataset in self.datasets)

    def check_complete(self) -> None:
        """Raises BadData when something in the store could not be read: it may descend from the image as well."""
        if self.unreadable:
            raise BadData(
                f"{len(self.unreadable)} artifacts or entries cannot be read and may descend from the image as well; the "
                f"first: {self.unreadable[0]}"
            )


@dataclass
class Archive:
    """What a store tells of its artifacts. Filled by many threads; unreadable: reasons by path or key."""

    manifests: dict[str, Manifest] = field(default_factory=dict)
    datasets: dict[str, KnownDataset] = field(default_factory=dict)
    entries: dict[layout.RegistryEntry, Entry] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)


def archive_of(store: ObjectStore, stop_check: StopCheck) -> Archive:
    """Reads all manifests, the provenance of all data sets, and the registry. Raises WrittenByNewer for a newer format."""
    found = Archive()

    def read(path: str) -> None:
        try:
            manifest = read_manifest(store, path)
            if manifest.kind == Dataset.KIND:
                found.datasets[path] = known(path, manifest, provenance(store, path, manifest))
            found.manifests[path] = manifest
        except NotFound:
            return  # deleted since the listing
        except BadData as error:
            found.unreadable[path] = str(error)

    def read_entry(key: str) -> None:
        place = layout.RegistryEntry.parse(key)
        assert place is not None, key
        try:
            found.entries[place] = Entry.from_bytes(store.get(key), f"{store.uri}/{key}")
        except NotFound:
            return
        except BadData as error:
            found.unreadable[key] = str(error)

    for_each(read, list_artifacts(store, ""), "reading manifests", stop_check)
    keys = [stored.key for stored in store.list(layout.REGISTRY) if layout.RegistryEntry.parse(stored.key)]
    for_each(read_entry, keys, "reading the registry", stop_check)
    return found


def trace(image: Sought, archive: Archive, *, look_alikes: bool) -> Trace:
    """What of the archive descends from the image. look_alikes: whether a picture that looks like it counts as the image."""
    found = recognised(image, list(archive.datasets.values()), look_alikes=look_alikes)
    met = {path: _traced(archive.datasets[path], ranks) for path, ranks in found.items()}
    holding = {path for path, dataset in met.items() if dataset.holds}
    descending = descendants(archive.manifests, holding)
    of_kind = {path: archive.manifests[path].kind for path in sorted(descending)}
    met |= {
        path: TracedDataset(path=path, images=met[path].images if path in met else [], holds=True)
        for path, kind in of_kind.items()
        if kind == Dataset.KIND
    }

    def paths(*kinds: str) -> list[str]:
        return [path for path, kind in of_kind.items() if kind in kinds]

    versions = {archive.manifests[path].version for path in paths(lora.Lora.KIND)}
    drawn = paths(images.Images.KIND, samples.KIND)
    named = {Dataset.KIND, lora.Lora.KIND, evaluation.KIND, images.Images.KIND, samples.KIND}
    return Trace(
        image=image.name,
        marks=sorted(image.marks),
        datasets=[met[path] for path in sorted(met)],
        loras=paths(lora.Lora.KIND),
        champions=_champions(archive.entries, descending, versions),
        drawn=[Drawn(path=path, pictures=_pictures(archive.manifests[path])) for path in drawn],
        evaluations=paths(evaluation.KIND),
        others=[path for path, kind in of_kind.items() if kind not in named],
        unreadable=[f"{path}: {reason}" for path, reason in sorted(archive.unreadable.items())],
    )


def descendants(manifests: Mapping[str, Manifest], roots: Set[str]) -> set[str]:
    """Paths of the roots and of all that was made of them, at whatever remove.

    A data set does not descend from another one as a whole: it holds the image, and is a root, or it does not.
    """
    found = set(roots)
    while new := {
        path
        for path, manifest in manifests.items()
        if path not in found
        and any(
            source in found and not (manifest.kind == manifests[source].kind == Dataset.KIND)
            for source in sources(manifest)
        )
    }:
        found |= new
    return found


def sources(manifest: Manifest) -> set[str]:
    """Paths of what an artifact was made of."""
    named = (manifest.settings.get(name) for name in NAMED_IN_RECIPES)
    return {*manifest.parents, *(path for path in named if isinstance(path, str))}


def exclusion_of(found: Trace, reason: str) -> Exclusion:
    """The record that keeps the image out of every data set from now on, by all that any data set knows it by."""
    marks = {*found.marks, *(mark for dataset in found.datasets for image in dataset.images for mark in image.marks)}
    return Exclusion(images=[ExcludedImage(name=found.image, marks=sorted(marks))], reason=reason)


def known(path: str, manifest: Manifest, entries: Sequence[Provenance]) -> KnownDataset:
    """What the data set at `path` tells of its images. entries: its provenance, empty where it has none."""
    files = file_hashes(manifest)
    told = {entry.file_name for entry in entries}
    # Of a data set that was made by other means no more is known than its files.
    bare = [
        Provenance(
            origin=name,
            reason=None,
            detail="",
            file_name=name,
            page=None,
            query=None,
            rank=rank,
            licence=None,
            kept=None,
        )
        for rank, name in enumerate(files, start=len(entries))
        if name.endswith(PNG) and name not in told
    ]
    return KnownDataset(path, [*entries, *bare], files, manifest.parents, manifest.settings)


def _traced(dataset: KnownDataset, ranks: Mapping[int, How]) -> TracedDataset:
    traced = [
        TracedImage(
            origin=entry.origin,
            how=ranks[entry.rank],
            file_name=entry.file_name,
            reason=entry.reason,
            marks=marks_of(dataset, entry),
        )
        for entry in dataset.entries
        if entry.rank in ranks
    ]
    return TracedDataset(path=dataset.path, images=traced, holds=any(image.file_name for image in traced))


def marks_of(dataset: KnownDataset, entry: Provenance) -> list[str]:
    """All that a data set knows a candidate by, as DATA_PREP_EXCLUDE takes it."""
    look = look_of_entry(entry)
    told = {entry.origin, without_fragment(entry.origin), *dataset.hashes(entry), *([str(look)] if look else [])}
    return sorted(mark for mark in told if is_mark(mark))


def _champions(
    entries: Mapping[layout.RegistryEntry, Entry], descending: Set[str], versions: Set[str]
) -> list[Champion]:
    """versions: of what descends, by which a LoRA is known that has gone to another path."""
    newest: dict[str, int] = {}
    for place in entries:
        newest[place.name] = max(place.number, newest.get(place.name, 0))
    return [
        Champion(model=place.name, number=place.number, lora=entry.lora, reigns=place.number == newest[place.name])
        for place, entry in sorted(entries.items(), key=lambda named: (named[0].name, named[0].number))
        if entry.lora is not None and (entry.lora in descending or entry.version in versions)
    ]


def _pictures(manifest: Manifest) -> list[str]:
    """The files that show what a LoRA drew; what the base model drew beside it descends from nothing."""
    names = [file.path for file in manifest.files if file.path.endswith(PNG)]
    return [name for name in names if not name.startswith(f"{images.BASE}/")]
