"""The small notes of a run, which its jobs leave for each other and for whoever looks from outside."""

from datetime import datetime
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from service.artifacts import layout
from service.artifacts.documents import Document
from service.artifacts.places import Place
from service.storage.interface import ObjectStore

Phase = Literal[
    "loading", "encoding", "training", "saving", "drawing", "publishing", "complete", "capped", "stopped", "failed"
]  # fmt: skip


class Note(Document):
    """A note of which a run has one. Writing it again takes the place of what was there."""

    PLACE: ClassVar[type[Place]]

    def write(self, store: ObjectStore, run_id: str) -> None:
        """Keeps the note for the run."""
        store.put(self.PLACE(run_id).path, self.to_bytes())  # type: ignore[call-arg]

    @classmethod
    def read(cls, store: ObjectStore, run_id: str) -> Self:
        """The note of a run. Raises NotFound without one, BadData for one that cannot be read."""
        key = cls.PLACE(run_id).path  # type: ignore[call-arg]
        return cls.from_bytes(store.get(key), f"{store.uri}/{key}")


class DatasetNote(Note):
    """Which data set the later jobs of the run work with."""

    PLACE = layout.DatasetNote
    dataset: str = Field(description="Path of the data set below ARTIFACTS_URI.")


class Config(Note):
    """The effective settings of the training: besides the version, one entry a setting, secrets as stars."""

    model_config = ConfigDict(extra="allow")

    PLACE = layout.ConfigNote

    @classmethod
    def of(cls, settings: dict[str, Any]) -> Self:
        """The note of these settings, which are plain JSON values."""
        return cls(**settings)


class Complete(Note):
    """What a training came to; written when its LoRA is published."""

    PLACE = layout.CompleteNote
    lora: str = Field(description="Path of the LoRA below ARTIFACTS_URI.")
    steps: int = Field(description="Optimizer steps that were taken.")
    of_step: int = Field(description="The step that the published weights are of.")
    held_out_ratio: float = Field(description="Held-out loss of these weights; 1 is that of the base model.")
    version: str = Field(description="Version of the LoRA, the hash of its content.")


class Spent(Note):
    """How long the stages of a retrain took, over all its starts."""

    PLACE = layout.SpentNote
    seconds: dict[str, float] = Field(
        default_factory=dict,
        description="Seconds by stage, over all starts; of one that was killed, those of the stages that it had finished.",
    )


class InCamelCase(BaseModel):
    """The names in status.json are those of Kubeflow's trainer."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)


class LastCheckpoint(InCamelCase):
    """The newest checkpoint that is committed."""

    step: int = Field(description="Its step.")
    path: str = Field(description="Its path below ARTIFACTS_URI.")


class Status(Note):
    """How far a training is."""

    model_config = ConfigDict(alias_generator=to_camel)

    PLACE = layout.StatusNote
    run_id: str = Field("", description="RUN_ID.")
    attempt: str = Field("", description="Which attempt wrote it.")
    phase: Phase = Field("loading", description="What the training does, or how it ended.")
    step: int = Field(0, description="Optimizer steps that were taken.")
    max_steps: int = Field(0, description="Optimizer steps of the whole run.")
    progress_percentage: float = Field(0, description="The share that is done, in percent.")
    estimated_remaining_seconds: int | None = Field(
        None, description="By the pace of this attempt after its first 5 steps; null until it is known."
    )
    seconds_per_step: float | None = Field(None, description="That pace, with all that is done between the steps.")
    hours: float = Field(0, description="Time of all attempts so far.")
    cost: float | None = Field(None, description="What they cost, by PRICE_PER_HOUR; null without it.")
    expected_cost: float | None = Field(
        None, description="What the whole run will have cost; null without PRICE_PER_HOUR, or until the pace is known."
    )
    metrics: dict[str, float] = Field(
        default_factory=dict,
        description="The last `loss` and `learningRate`, `heldOutLoss`, and `heldOutRatio` where 1 is the base model; "
        "each once it is known.",
    )
    best_step: int | None = Field(None, description="Step with the lowest held-out loss; null before any was measured.")
    last_checkpoint: LastCheckpoint | None = Field(
        None, description="The newest committed checkpoint; null without one."
    )
    last_updated_time: datetime | None = Field(None, description="When this was written.")


class Attempt(Document):
    """Of one attempt at a training: that it began, and how long it took so far. It alone writes it, again and again."""

    attempt: str = Field(description="Its name: the pod's ATTEMPT_ID, or a random one.")
    step: int = Field(description="Step of the checkpoint from which it began; 0 without one.")
    started: datetime = Field(description="When it began.")
    seconds: float = Field(0.0, ge=0, description="Time that it took, up to the last writing.")

    @property
    def name(self) -> str:
        """By which notes of it are found. With the time: whoever sets ATTEMPT_ID to the same for all has one name for all."""
        return f"{self.started:%Y%m%dT%H%M%S%f}-{self.attempt}"


class PublishedNote(Document):
    """Of a preparation: which data set was made of it with one recipe."""

    dataset: str = Field(description="Path of the data set below ARTIFACTS_URI.")
