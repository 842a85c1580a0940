"""Votes of a person who compared pictures blind: the file that an evaluation's compare.html makes, and EVALUATE_VOTES reads.

It says which side was chosen, and not of whom the side was: that follows from the version of the images, and nobody who
votes can see it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from service.artifacts.documents import Detail, Document
from service.exits import BadConfiguration
from service.storage.opening import read_file_at

Choice = Literal["left", "right", "none"]


class Vote(Detail):
    """What was chosen of one pair."""

    picture: Annotated[int, Field(ge=0, strict=True)] = Field(description="Number of the picture, on either side.")
    chosen: Choice = Field(description="The side that was chosen; `none`: no difference.")


class Votes(Document):
    """Votes of one person on pairs of the same prompt and seed."""

    images: str = Field(description="Path of the images below ARTIFACTS_URI.")
    version: str = Field(description="Version of these images, the hash of their content.")
    votes: list[Vote] = Field(description="One a pair, in the order in which they were given.")

    @model_validator(mode="after")
    def _each_pair_once(self) -> Self:
        seen: set[int] = set()
        for vote in self.votes:
            if vote.picture in seen:
                raise ValueError(f"picture {vote.picture} was voted on twice")
            seen.add(vote.picture)
        return self


def read_files(places: Sequence[str], setting: str) -> dict[str, bytes]:
    """The files, local or s3://, by their place, each checked to hold votes; `setting`: the variable that names them.

    Raises MissingInput for one that is not there, BadConfiguration for one that is named twice, BadData for a damaged one.
    """
    found: dict[str, bytes] = {}
    for place in places:
        content = read_file_at(place, setting)
        if content in found.values():
            raise BadConfiguration(f"{setting} names the votes in {place} twice; name each file once")
        Votes.from_bytes(content, place)
        found[place] = content
    return found


def hashes_of(files: Mapping[str, bytes]) -> list[str] | None:
    """What votes are known by, wherever their files lie: the sha256 of each; None without any."""
    return sorted(hashlib.sha256(content).hexdigest() for content in files.values()) or None
