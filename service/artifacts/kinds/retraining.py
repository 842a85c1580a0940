"""A retraining: what a run of `retrain` came to, for programs (retraining.json) and for people (one page, and it in short)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from service.artifacts.documents import Document
from service.artifacts.fetching import read_file
from service.artifacts.kinds.evaluation import Outcome
from service.artifacts.publishing import Artifact, publish
from service.storage.interface import ObjectStore

KIND = "retraining"
JSON_FILE = "retraining.json"
PAGE_FILE = "index.html"
REPORT_FILE = "report.md"
DIFFERENCE_FILE = "difference.json"

FILES = {
    JSON_FILE: "What it came to, for programs.",
    PAGE_FILE: "The same for people, beside the evaluation's measurements and pictures: one page that needs no other file.",
    REPORT_FILE: "The same in short, as a comment that a pull request can show.",
    DIFFERENCE_FILE: "What changed in the data set, as `sdlora diff --json` tells it; only where there was a champion with a "
    "data set.",
}


class Retraining(Document):
    """What a run of retrain came to."""

    model: str = Field(description="Name of the model in the registry.")
    decision: Outcome = Field(description="What the evaluation says.")
    reason: str = Field(description="Why, in one sentence with the figures.")
    entry: int | None = Field(
        description="Number of the registry's entry that promoted the LoRA; null: it was not promoted."
    )
    lora: str = Field(description="Path of the LoRA below ARTIFACTS_URI.")
    evaluation: str = Field(description="Path of the evaluation that decided.")
    dataset: str = Field(description="Path of the data set that the LoRA was trained on.")
    champion: str | None = Field(description="Path of the LoRA that reigned when it was judged; null: none did.")
    champion_dataset: str | None = Field(
        description="Path of the data set that the champion was trained on; null where there is none to compare with."
    )
    seconds: dict[str, float] = Field(
        description="How long each stage took, over all starts of the run; of starts that were killed, the training alone."
    )
    price: float | None = Field(description="What these seconds cost at PRICE_PER_HOUR; null without it.")

    @property
    def promoted(self) -> bool:
        """Whether the LoRA became the champion by this run."""
        return self.entry is not None


def write(
    store: ObjectStore, folder: Path, *, path: str, parents: Sequence[str], recipe: Mapping[str, Any]
) -> Artifact:
    """Publishes the retraining in `folder`. parents: the LoRA and the data set."""
    return publish(store, folder, kind=KIND, path=path, parents=parents, settings=recipe)


def read(store: ObjectStore, path: str) -> Retraining:
    """The retraining at `path`. Raises NotFound without one, BadData for one that is damaged."""
    return Retraining.from_bytes(read_file(store, path, JSON_FILE), f"{store.uri}/{path}/{JSON_FILE}")
