"""Every path below ARTIFACTS_URI but those of a preparation, built and parsed here and nowhere else."""

from service.artifacts.places import Place, any_of, places_of

# Data sets and models


class DatasetVersions(Place, template="datasets/{name}"):
    """All versions of a data set."""

    name: str


class Dataset(Place, template="datasets/{name}/{version}", swept=True):
    """A data set."""

    name: str
    version: str


class Models(Place, template="models"):
    """All models that were mirrored from the hub."""


class Model(Place, template="models/{model}/{revision}", swept=True):
    """Weights of a model, mirrored from the hub."""

    model: str
    revision: str


class ImportedLoras(Place, template="loras"):
    """All LoRAs that were trained elsewhere."""


class ImportedLora(Place, template="loras/{version}", swept=True):
    """A LoRA that was trained elsewhere, by its content."""

    version: str


class RegistryEntry(Place, template="registry/{name}/{number:08d}-{digest}.json"):
    """An entry in the history of a model, which nobody ever changes; the highest number is that of today.

    digest: the first 16 hexadecimal digits of the SHA-256 of the entry before it; of nothing for the first one. So all who
    would write the next entry write the same key, of which a store with conditional writes lets one have it.
    """

    name: str
    number: int
    digest: str


class RegistryFile(Place, template="registry/{name}/{file}.json"):
    """An entry, or whatever else in the folder of a model may name a LoRA."""

    name: str
    file: str


class Registry(Place, template="registry/{name}"):
    """The history of a model, and a copy of its champion."""

    name: str


class ChampionCopy(Place, template="registry/{name}/champion"):
    """A copy of the LoRA that is the champion, for programs that know nothing of the history. The one artifact that changes."""

    name: str


class Ballots(Place, template="registry/{name}/ballots/{number:08d}"):
    """How those who would write an entry at the same moment agreed on one, where the store has no conditional writes."""

    name: str
    number: int


class Ballot(Place, template="registry/{name}/ballots/{number:08d}/{round:08d}/{writer}/{phase}"):
    """What one of them promised, or accepted, in one round. Nobody ever changes or deletes it."""

    name: str
    number: int
    round: int
    writer: str
    phase: str


class Exclusion(Place, template="exclusions/{digest}.json"):
    """Some images that no data set may hold any more, and why; nobody ever changes it."""

    digest: str


EXCLUSIONS = "exclusions/"
"""What every path of these records begins with."""


REGISTRY = "registry/"
"""What every path of the registry begins with."""


# Caches, which runs share
class LatentsCache(Place, template="cache/latents/{fingerprint}"):
    """Rows that the autoencoder with this fingerprint has encoded."""

    fingerprint: str


class Latents(Place, template="cache/latents/{fingerprint}/{version}", swept=True):
    """Some of these rows."""

    fingerprint: str
    version: str


class PromptsCache(Place, template="cache/prompts/{fingerprint}"):
    """Rows that the text encoder with this fingerprint has encoded."""

    fingerprint: str


class Prompts(Place, template="cache/prompts/{fingerprint}/{version}", swept=True):
    """Some of these rows."""

    fingerprint: str
    version: str


class CaptionsCache(Place, template="cache/captions/{captioner}"):
    """What a captioner said about images."""

    captioner: str


class Captions(Place, template="cache/captions/{captioner}/{digest}.jsonl"):
    """What it said about some of them: a line of JSON each, `sha256` of its pixels and `text`."""

    captioner: str
    digest: str


# A run, and the notes that its jobs leave for each other and for people


class RunFolder(Place, template="runs/{run}"):
    """All that belongs to one RUN_ID."""

    run: str


RUNS = "runs/"
"""What every path of every run begins with."""


class DatasetNote(Place, template="runs/{run}/dataset.json"):
    """Which data set the run works with."""

    run: str


class ConfigNote(Place, template="runs/{run}/config.json"):
    """The settings of the training."""

    run: str


class StatusNote(Place, template="runs/{run}/status.json"):
    """How far the training is."""

    run: str


class CompleteNote(Place, template="runs/{run}/COMPLETE.json"):
    """What the training came to."""

    run: str


class SpentNote(Place, template="runs/{run}/spent.json"):
    """How long the stages of a retrain took."""

    run: str


class AttemptNotes(Place, template="runs/{run}/attempts"):
    """A note of each attempt at the training."""

    run: str


class AttemptNote(Place, template="runs/{run}/attempts/{name}.json"):
    """When an attempt began, and at which step."""

    run: str
    name: str


# Artifacts of a run


class Checkpoints(Place, template="runs/{run}/checkpoints"):
    """All checkpoints of a run."""

    run: str


class Checkpoint(Place, template="runs/{run}/checkpoints/step-{step:08d}/{attempt}", swept=True):
    """A checkpoint. Its last part is no other's: two writers never touch one file."""

    run: str
    step: int
    attempt: str


class Lora(Place, template="runs/{run}/lora", swept=True):
    """The LoRA of a run."""

    run: str


class CappedLora(Place, template="runs/{run}/capped/step-{step:08d}", swept=True):
    """The best LoRA so far of a run that TRAIN_MAX_HOURS or TRAIN_MAX_COST ended after `step`."""

    run: str
    step: int


class CappedLoras(Place, template="runs/{run}/capped"):
    """All of these of a run."""

    run: str


class Samples(Place, template="runs/{run}/samples/step-{step:08d}", swept=True):
    """Pictures that were drawn during the training."""

    run: str
    step: int


class Tensorboard(Place, template="runs/{run}/tensorboard/{attempt}", swept=True):
    """What an attempt wrote for TensorBoard."""

    run: str
    attempt: str


class Images(Place, template="runs/{run}/images/{key}", swept=True):
    """Images that were drawn with one recipe."""

    run: str
    key: str


class Unprompted(Place, template="runs/{run}/unprompted/{key}", swept=True):
    """Images that were drawn of prompts without the style phrase."""

    run: str
    key: str


class Rival(Place, template="runs/{run}/champion/{key}", swept=True):
    """Images of the champion, which a LoRA of the run was compared with."""

    run: str
    key: str


class Tried(Place, template="runs/{run}/strengths/{key}", swept=True):
    """Images at a strength of the LoRA that was tried."""

    run: str
    key: str


class Evaluations(Place, template="runs/{run}/evaluation"):
    """All evaluations of a run."""

    run: str


class Evaluation(Place, template="runs/{run}/evaluation/{key}", swept=True):
    """The evaluation of one recipe."""

    run: str
    key: str


class Measurements(Place, template="runs/{run}/measurements/{key}", swept=True):
    """What models said of some images, before anything was concluded from it."""

    run: str
    key: str


class Retraining(Place, template="runs/{run}/retraining/{key}", swept=True):
    """What a retrain came to, judged as one recipe says."""

    run: str
    key: str


class Drawing(Place, template="runs/{run}/drawing/{key}", swept=True):
    """Pictures of a drawing that is under way, until they are published."""

    run: str
    key: str


class Drawn(Place, template="runs/{run}/drawing/{key}/{side}"):
    """The pictures of one side of it: of the base model, or of the LoRA."""

    run: str
    key: str
    side: str


PLACES = places_of(__name__)
_SWEPT = any_of(place for place in PLACES if place.swept)


def swept_folder(key: str) -> str | None:
    """The folder of an artifact, or of what becomes one, that `key` lies in; None for any other key."""
    match = _SWEPT.match(key)
    return match[1] if match else None
