"""The registry: for each model a history of decisions. An entry is one JSON file, which nobody ever changes."""

from datetime import UTC, datetime
from typing import Any, ClassVar, Literal

from pydantic import Field

from service.artifacts import layout
from service.artifacts.code import code_version
from service.artifacts.documents import Document
from service.storage.interface import NotFound, ObjectStore

Action = Literal["promote", "rollback", "retire"]
OF_THE_LORA = ("lora", "version", "scale", "checkpoint", "evaluation", "promotion")
LONG_AGO = datetime.fromtimestamp(0, UTC)


class Entry(Document):
    """An entry: which LoRA is the champion from here on, and why. Version 1 had no more than its path."""

    SCHEMA: ClassVar[int] = 2
    schema_version: int = Field(2, description="Version of this format.")

    action: Action = Field("promote", description="What was done.")
    lora: str | None = Field(
        description="Path of the champion from here on, below ARTIFACTS_URI; null: none is left since this retirement."
    )
    version: str = Field("", description="Version of this LoRA, the hash of its content.")
    scale: float = Field(1.0, description="Strength at which it is meant to be used; the default of infer.")
    checkpoint: int | None = Field(None, description="Step of the training that its weights are of; null: not known.")
    evaluation: str | None = Field(None, description="Path of the evaluation on which it was promoted.")
    promotion: int = Field(
        0, description="Number of the entry that promoted it, which may be this one; 0 without a LoRA."
    )
    previous: str | None = Field(None, description="Path of the champion until then; null: there was none.")
    retired: dict[str, str] = Field(
        default_factory=dict, description="LoRAs that this entry withdraws for ever: the path of each by its version."
    )
    reason: str = Field("", description="Why, for people.")
    overruled: str = Field("", description="What spoke against it, where PROMOTE_FORCE overruled that.")
    by: str = Field("", description="Who did it, or which CI run.")
    at: datetime = Field(LONG_AGO, description="When, by the clock of who did it.")
    code_version: str = Field("", description="Version and commit of this program.")
    image: str | None = Field(None, description="Container image that it ran in; null: not known.")

    @classmethod
    def made_now(cls, **facts: Any) -> "Entry":
        """An entry with these facts, which is made at this moment by this program."""
        return cls(at=datetime.now(UTC), code_version=code_version(), **facts)

    def of_the_lora(self) -> dict[str, Any]:
        """What this entry says of its LoRA, for a later one with which it is the champion again."""
        return {name: getattr(self, name) for name in OF_THE_LORA}

    def says_the_same(self, other: "Entry") -> bool:
        """Whether both make the same change, whoever made it, when and why."""
        return all(
            getattr(self, name) == getattr(other, name) for name in ("action", "previous", "retired", *OF_THE_LORA)
        )


def models(store: ObjectStore) -> list[str]:
    """Names of all models that have a history, sorted."""
    places = (layout.RegistryEntry.parse(stored.key) for stored in store.list(layout.REGISTRY))
    return sorted({place.name for place in places if place})


def named(store: ObjectStore) -> set[str]:
    """Paths of all that the registry names: LoRAs and evaluations. Raises BadData for a file that cannot be read."""
    found: set[str | None] = set()
    for stored in store.list(layout.REGISTRY):
        if layout.RegistryFile.parse(stored.key):
            try:
                entry = Entry.from_bytes(store.get(stored.key), f"{store.uri}/{stored.key}")
            except NotFound:
                continue  # deleted since the listing
            found |= {entry.lora, entry.previous, entry.evaluation, *entry.retired.values()}
    return {path for path in found if path is not None}
