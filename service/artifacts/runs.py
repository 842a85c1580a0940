"""A run: the jobs that share a RUN_ID, and what they leave for each other."""

from contextlib import suppress

from service.artifacts import layout
from service.artifacts.notes import DatasetNote
from service.exits import BadData, MissingInput
from service.storage.interface import NotFound, ObjectStore
from service.storage.keys import checked_key


class Run:
    """The part of a store that belongs to one run."""

    def __init__(self, store: ObjectStore, run_id: str) -> None:
        self.store = store
        self.run_id = run_id
        checked_key(layout.RunFolder(run_id).path)

    @property
    def lora_path(self) -> str:
        """Where the run's LoRA is, once it is published."""
        return layout.Lora(self.run_id).path

    def remember_dataset(self, dataset_path: str) -> None:
        """Notes which data set the later jobs of the run work with; what says so already stays as it is."""
        with suppress(NotFound, BadData):
            if DatasetNote.read(self.store, self.run_id).dataset == dataset_path:
                return
        DatasetNote(dataset=checked_key(dataset_path)).write(self.store, self.run_id)

    def dataset(self) -> str:
        """The path of the run's data set."""
        try:
            return checked_key(DatasetNote.read(self.store, self.run_id).dataset)
        except NotFound as error:
            raise MissingInput(
                f"run {self.run_id!r} has no data set in {self.store.uri}; run data-prep with the same RUN_ID first, "
                "or set TRAIN_DATASET"
            ) from error
        except BadData as error:
            raise BadData(f"{error}; run data-prep again") from error
