"""The registry: for each model a history of decisions. An entry is one JSON file, which nobody ever changes."""

from pydantic import Field

from service.artifacts import layout
from service.artifacts.documents import Document
from service.storage.interface import NotFound, ObjectStore


class Entry(Document):
    """An entry: which LoRA was put to use."""

    lora: str = Field(description="Path of the LoRA below ARTIFACTS_URI.")


def loras(store: ObjectStore) -> set[str]:
    """Paths of all LoRAs that the registry names. Raises BadData for a file that names none: it might name any."""
    found = set()
    for stored in store.list(layout.REGISTRY):
        if layout.RegistryFile.parse(stored.key):
            try:
                found.add(Entry.from_bytes(store.get(stored.key), f"{store.uri}/{stored.key}").lora)
            except NotFound:
                continue  # deleted since the listing
    return found
