"""A blind comparison: in which order pairs are shown, on which side the LoRA is, and what votes then say.

Both follow from the version of the images by a hash. So the page is the same each time, and need not hold the answer.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from service.artifacts.kinds.measurements import Measurements
from service.artifacts.kinds.votes import Votes
from service.exits import BadConfiguration, BadData

VOTES = "votes"
"""Name of the array of `preferences`, beside those that were measured."""


def order_of_pairs(version: str, prompts: Sequence[str]) -> list[int]:
    """Numbers of the pictures as they are shown: one of each prompt before the second of any, at random else.

    prompts: that of each picture. Whoever stops early has voted on as many prompts as can be.
    """
    drawn = sorted(range(len(prompts)), key=lambda picture: _hashed("order", version, picture))
    seen: dict[str, int] = {}
    rounds: dict[int, int] = {}
    for picture in drawn:
        rounds[picture] = seen.get(prompts[picture], 0)
        seen[prompts[picture]] = rounds[picture] + 1
    return sorted(drawn, key=rounds.__getitem__)


def lora_is_left(version: str, picture: int) -> bool:
    """Whether the LoRA's picture of this number is shown on the left."""
    return _hashed("side", version, picture)[0] % 2 == 0


def preferences(votes: Mapping[str, Votes], version: str, pictures: int) -> NDArray[np.int64]:
    """(N, 2) the number of a picture, and 1 for the LoRA, −1 for the base, 0 for no difference; votes: by their file.

    version: of the images that are judged, `pictures` on each side. Raises BadConfiguration for votes on other images, BadData
    for a picture that they do not have.
    """
    found = []
    for file, one in votes.items():
        if one.version != version:
            raise BadConfiguration(
                f"the votes in {file} are on {one.images} in version {one.version}, and this evaluation is of images in "
                f"version {version}; vote on its own compare.html"
            )
        for vote in one.votes:
            if vote.picture >= pictures:
                raise BadData(f"{file} has a vote on picture {vote.picture}; the highest number is {pictures - 1}")
            for_lora = (vote.chosen == "left") == lora_is_left(version, vote.picture)
            found.append((vote.picture, 0 if vote.chosen == "none" else 1 if for_lora else -1))
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def with_votes(measurements: Measurements, files: Mapping[str, bytes], version: str) -> Measurements:
    """The measurements with what the files of votes, by their name, say of the images that were measured."""
    votes = {file: Votes.from_bytes(content, file) for file, content in files.items()}
    chosen = preferences(votes, version, len(measurements.of.prompts))
    return replace(measurements, arrays={**measurements.arrays, VOTES: chosen})


def _hashed(what: str, version: str, picture: int) -> bytes:
    return hashlib.sha256(f"{what} {version} {picture}".encode()).digest()
