"""A run: the jobs that share a RUN_ID, and what they leave for each other."""

import json
from collections.abc import Mapping
from typing import Any

from service.artifacts import layout
from service.exits import BadData, MissingInput
from service.storage.interface import NotFound, ObjectStore
from service.storage.keys import checked_key


class Run:
    """The part of a store that belongs to one run."""

    def __init__(self, store: ObjectStore, run_id: str) -> None:
        self.store = store
        self.run_id = run_id
        self._dataset_note = layout.DatasetNote(run_id)
        checked_key(self._dataset_note.path)

    @property
    def lora_path(self) -> str:
        """Where the run's LoRA is, once it is published."""
        return layout.Lora(self.run_id).path

    def remember_dataset(self, dataset_path: str) -> None:
        """Notes which data set the later jobs of the run work with."""
        self.note(self._dataset_note, {"dataset": checked_key(dataset_path)})

    def dataset(self) -> str:
        """The path of the run's data set."""
        key = self._dataset_note.path
        try:
            note = json.loads(self.store.get(key))
            return checked_key(note["dataset"])
        except NotFound as error:
            raise MissingInput(
                f"run {self.run_id!r} has no data set in {self.store.uri}; run data-prep with the same RUN_ID first, "
                "or set TRAIN_DATASET"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise BadData(f"{self.store.uri}/{key} does not name a data set; run data-prep again") from error

    def note(self, place: layout.Place, facts: Mapping[str, Any]) -> None:
        """Keeps facts at a place of the run, in place of what was there."""
        self.store.put(place.path, (json.dumps(dict(facts), indent=2, ensure_ascii=False) + "\n").encode())
