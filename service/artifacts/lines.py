"""JSON lines that jobs keep while they are under way, and remember: each kind a typed model, written and read here alone.

A line has no schema version: one that is not understood is as good as none, and what it stood for is done again.
"""

import json
from collections.abc import Iterable, Sequence
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.artifacts.documents import first_complaint
from service.exits import BadData


class Line(BaseModel):
    """A JSON object in one line. What this version does not know, it passes over."""

    model_config = ConfigDict(frozen=True)


class CandidateLine(Line):
    """An image that a source knows of: a line of candidates.jsonl."""

    rank: int = Field(description="Its place in the list, from 0.")
    origin: str = Field(description="Its URL, or its name inside its folder.")
    page: str | None = Field(None, description="URL of the page that shows it.")
    query: str | None = Field(None, description="The search that found it.")
    licence: str | None = Field(None, description="The licence that the search or the list names.")
    caption: str | None = Field(None, description="What its owner says about it.")


class FeaturesLine(Line):
    """What is known of an image that was decoded."""

    sha256: str = Field(description="Hash of the canonical image's pixels with their size.")
    width: int = Field(description="Of the canonical image, in pixels.")
    height: int = Field(description="Of the canonical image, in pixels.")
    source_width: int = Field(description="As it came, in pixels.")
    source_height: int = Field(description="As it came, in pixels.")
    phash: int = Field(description="Perceptual hash of 64 bits.")
    dhash: int = Field(description="Perceptual hash of 64 bits, by differences.")
    colour: int = Field(description="The mean, as 0xRRGGBB.")
    animated: bool = Field(False, description="Whether it was the first of several frames.")
    relevance: float | None = Field(None, description="100 times the cosine to what was searched for.")
    lossless: bool = Field(False, description="Whether no encoder has changed its pixels.")
    source_sha256: str = Field("", description="Hash of the file as it came; empty where it was not kept.")


class OutcomeLine(Line):
    """What became of a candidate."""

    rank: int = Field(description="The candidate's place in the list.")
    reason: str | None = Field(description="Why it is left out; null for a good image.")
    detail: str = Field(description="The same more closely.")
    features: FeaturesLine | None = Field(description="Of what was decoded.")


class ShardHead(Line):
    """The first line of a shard that is done; an outcome for each of its candidates follows."""

    candidates: str = Field(description="SHA-256 of the list of candidates that was worked on.")


class CaptionLine(Line):
    """What a captioner said about an image, word for word."""

    sha256: str = Field(description="Hash of the image's pixels.")
    text: str = Field(description="Its words, before the style is added and repetitions are cut.")


AnyLine = TypeVar("AnyLine", bound=Line)


def to_lines(lines: Iterable[Line]) -> bytes:
    """A line of JSON each."""
    # Names of files may hold bytes that are no text, which Python reads as halves of pairs of UTF-16.
    return "".join(f"{json.dumps(line.model_dump(), ensure_ascii=False)}\n" for line in lines).encode(
        "utf-8", "surrogatepass"
    )


def from_lines(model: type[AnyLine], lines: Sequence[bytes], where: str) -> list[AnyLine]:
    """The objects in `lines`. Raises BadData, naming `where`, for the first that is none."""
    found = []
    for line in lines:
        try:
            found.append(model.model_validate(json.loads(line)))
        except ValidationError as error:
            raise BadData(f"{where} is damaged: {first_complaint(error)}") from error
        except ValueError as error:
            raise BadData(f"{where} is damaged: {error}") from error
    return found
