"""An evaluation: evaluation.json, what was measured of a LoRA and what was decided about it; beside it index.html for people.

Figures that are not finite are the strings "NaN", "Infinity" and "-Infinity", because JSON has no numbers for them.

Schema version 2. Version 1 held the figures of four measurements under names of their own, and not what each of them said:
it is read as version 2, with findings that have neither outcome nor clause.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.artifacts.documents import check_schema, first_complaint
from service.artifacts.fetching import fetch
from service.artifacts.kinds.measurements import Candidate
from service.artifacts.publishing import Artifact, publish, read_manifest
from service.exits import BadConfiguration, BadData
from service.storage.interface import ObjectStore

KIND = "evaluation"
SCHEMA = 2
"""Highest schema version of evaluation.json that this program reads, and the one that it writes."""
JSON_FILE = "evaluation.json"
PAGE_FILE = "index.html"
REPORT_FILE = "report.md"
COMPARE_FILE = "compare.html"
VOTES_FOLDER = "votes"

FILES = {
    JSON_FILE: "What was measured and decided, for programs.",
    PAGE_FILE: "The same for people: one page that needs no other file and no network.",
    REPORT_FILE: "The same in short, as a comment that a pull request can show.",
    COMPARE_FILE: "The pictures of base and LoRA in pairs, without a word which is which, to vote on: one page that needs "
    "no other file and no network, and makes a file for EVALUATE_VOTES.",
    f"{VOTES_FOLDER}/0.json, …": "The votes that were counted, if there were any.",
}

Outcome = Literal["promote", "hold", "reject"]
Unit = Literal["share", "count", ""]


@dataclass(frozen=True)
class Interval:
    """An estimate and the ends of its confidence interval, low ≤ value ≤ high; all NaN when an input was not finite."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.3g} [{self.low:+.3g}, {self.high:+.3g}]"

    @property
    def finite(self) -> bool:
        """Whether all three are numbers that can be compared."""
        return all(isfinite(end) for end in (self.value, self.low, self.high))


@dataclass(frozen=True)
class Missing:
    """How many more would decide what is held, of each alone and if the gain stays what it is; null where none would.

    voted_prompts: of votes, on how many more prompts they would have to decide.
    """

    held_out_images: int | None
    prompts: int | None
    seeds: int | None
    voted_prompts: int | None = None

    def __str__(self) -> str:
        named = {
            "seed": self.seeds,
            "prompt": self.prompts,
            "held-out image": self.held_out_images,
            "voted prompt": self.voted_prompts,
        }
        ways = [f"{count} more {name}{'s' * (count > 1)}" for name, count in named.items() if count]
        return f"about {' or '.join(ways)} would decide it" if ways else "more images would hardly decide it"


class Finding(BaseModel):
    """What one criterion measured, and what it says by itself."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    name: str = Field(description="Which criterion, in one word by which programs find it: style, adherence, …")
    title: str = Field(description="The criterion for people, in a few words.")
    explanation: str = Field(description="What is measured, in which unit, and what is good.")
    unit: Unit = Field(
        "", description="`share`: base and lora are shares from 0 to 1; `count`: of pictures; else as explained."
    )
    base: float | None = Field(description="The figure of the base model; null where only the LoRA has one.")
    lora: float | None = Field(description="The figure of the LoRA; null where there was nothing to measure.")
    gain: Interval | None = Field(
        description="What the LoRA gains over the base, more is better, and its interval; null where shares decide."
    )
    against: Literal["base", "champion"] = Field(
        "base", description="What the LoRA was compared with; the figure of the champion, too, stands under `base`."
    )
    threshold: float | None = Field(
        description="What the figure or the interval was held against; null: it only informs."
    )
    needed: str = Field(description="What speaks for promotion, for people: interval above 0.")
    outcome: Outcome | None = Field(
        description="The decision that this criterion alone would give; null where it only informs, or by version 1."
    )
    clause: str = Field(description="Why, with the figures, as a part of a sentence; empty without an outcome.")
    missing: Missing | None = Field(
        None,
        description="Of what is held because its interval straddles the threshold: what would decide it. Seeds and prompts "
        "are EVALUATE_VARIATIONS and EVALUATE_MAX_PROMPTS; more held-out images come with their captions as prompts.",
    )


@dataclass(frozen=True)
class Counts:
    """How much was measured: prompts, images of each side per prompt, held-out reference images."""

    prompts: int
    variations: int
    held_out_images: int


@dataclass(frozen=True)
class Nearest:
    """A picture of the LoRA, by its number, and the training image that is nearest to it, by its name in the data set.

    cosine: of their CLIP embeddings, −1 to 1.
    """

    picture: int
    prompt: str
    training: str
    cosine: float


class Champion(BaseModel):
    """The champion that reigned when an evaluation was made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lora: str = Field(description="Path of its LoRA below ARTIFACTS_URI.")
    version: str = Field(description="Version of this LoRA, the hash of its content.")
    scale: float = Field(1.0, description="Strength at which it reigned.")


class Evaluation(BaseModel):
    """All that an evaluation found, and what it took to find it."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    schema_version: Literal[2] = 2
    decision: Outcome = Field(description="The worst of the findings' outcomes.")
    reason: str = Field(description="Why, in one sentence with the figures.")
    findings: list[Finding] = Field(description="One for each criterion, in the order of the page.")
    confidence: float = Field(description="Confidence of all intervals, between 0.5 and 1.")
    counts: Counts
    prompts: list[str] = Field(description="What was drawn, each prompt with `counts.variations` seeds.")
    nearest: list[Nearest] = Field(
        [], description="Of the prompts whose pictures come nearest to a training image, the one that comes nearest."
    )
    lora: str = Field(description="Path of the LoRA below ARTIFACTS_URI.")
    scale: float = Field(1.0, description="Strength of the LoRA: what it is promoted with, and drawn with as champion.")
    candidates: list[Candidate] = Field(
        [],
        description="The strengths of which this one was chosen, by other prompts than these; empty for a single one.",
    )
    champion: Champion | None = Field(
        None,
        description="Against whom it was made; null: there was no champion, or PROMOTE_MODEL did not name the model.",
    )
    dataset: str = Field(description="Path of the data set whose held-out images were the measure.")
    measurements: str | None = Field(
        description="Path of the measurements below ARTIFACTS_URI; null for version 1, which kept none."
    )
    settings: dict[str, Any] = Field(description="The settings that led to it, and the version of the LoRA.")

    @property
    def compared_with(self) -> str:
        """For people: the champion that the LoRA was compared with, or why with none."""
        if self.champion is None:
            return "no champion to compare with"
        strength = "" if self.champion.scale == 1 else f" at strength {self.champion.scale:g}"
        itself = all(finding.against == "base" for finding in self.findings)
        return f"champion {self.champion.lora}{strength}{', which is this LoRA' if itself else ''}"

    def finding(self, name: str) -> Finding:
        """The finding of one criterion; raises KeyError when it was not among them."""
        return {finding.name: finding for finding in self.findings}[name]


def write(
    store: ObjectStore, folder: Path, *, path: str, parents: Sequence[str], recipe: Mapping[str, Any]
) -> Artifact:
    """Publishes the evaluation in `folder`. parents: the LoRA, the data set, and the measurements."""
    return publish(store, folder, kind=KIND, kind_schema=SCHEMA, path=path, parents=parents, settings=recipe)


def read(store: ObjectStore, path: str, work_dir: Path) -> Evaluation:
    """The evaluation at `path`, verified. Raises NotFound without one, BadConfiguration for an artifact of another kind.

    Raises BadData for one that is damaged, or is not of the LoRA and the data set that its manifest names.
    """
    manifest = read_manifest(store, path)
    if manifest.kind != KIND:
        raise BadConfiguration(f"{path} in {store.uri} holds the kind {manifest.kind!r}; {KIND!r} is needed there")
    check_schema(manifest.kind_schema, SCHEMA, f"{store.uri}/{path}")
    found = read_json(fetch(store, path, work_dir))
    if [found.lora, found.dataset] != manifest.parents[:2]:
        raise BadData(
            f"{path} in {store.uri} is of {found.lora} and {found.dataset}, and its manifest names {manifest.parents}"
        )
    return found


def write_json(evaluation: Evaluation, folder: Path) -> None:
    """Writes evaluation.json into `folder`; the same evaluation gives the same bytes."""
    text = evaluation.model_dump_json(indent=2) + "\n"
    (folder / JSON_FILE).write_text(text, encoding="utf-8")


def write_votes(votes: Sequence[bytes], folder: Path) -> None:
    """Keeps files of votes beside what was decided by them."""
    for number, content in enumerate(votes):
        (folder / VOTES_FOLDER).mkdir(exist_ok=True)
        (folder / VOTES_FOLDER / f"{number}.json").write_bytes(content)


def read_json(folder: Path) -> Evaluation:
    """The evaluation of a fetched folder, of any version so far; raises BadData for one that is none.

    Raises WrittenByNewer for one of a newer schema.
    """
    try:
        content = json.loads((folder / JSON_FILE).read_text(encoding="utf-8"))
        check_schema(content["schema_version"], SCHEMA, str(folder / JSON_FILE))
        if content["schema_version"] == 1:
            content = _upgraded(content)
        # As JSON again, for only there a figure may be the string "NaN".
        return Evaluation.model_validate_json(json.dumps(content))
    except ValidationError as error:
        raise BadData(f"{folder / JSON_FILE} is no evaluation: {first_complaint(error)}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadData(f"{folder / JSON_FILE} is no evaluation: {error}") from error


def _upgraded(old: dict[str, Any]) -> dict[str, Any]:
    """Version 1 as version 2."""
    measured, thresholds = old["measurements"], old["thresholds"]
    live = {"unit": "share", "base": None, "lora": measured["liveness"], "gain": None}
    named = [
        ("liveness", "LoRA is live", live, thresholds["live_share"]),
        ("style", "Distance to the style", {**old["style_distance"], "gain": measured["style_gain"]}, 0.0),
        (
            "adherence",
            "Following the prompt",
            {**old["adherence"], "gain": measured["adherence_gain"]},
            -thresholds["adherence_margin"],
        ),
        ("held_out", "Held-out loss", {**old["held_out_loss"], "gain": measured["held_out_gain"]}, 0.0),
    ]
    unsaid = {"explanation": "", "needed": "", "outcome": None, "clause": ""}
    kept = {name: old[name] for name in ("decision", "reason", "confidence", "counts", "prompts", "lora", "dataset")}
    findings = [{"name": n, "title": title, "threshold": t, **figures, **unsaid} for n, title, figures, t in named]
    return {**kept, "schema_version": 2, "findings": findings, "measurements": None, "settings": old["settings"]}
