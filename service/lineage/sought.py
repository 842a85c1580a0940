"""The image that is looked for: what is known of it, and what it would be in a data set."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from PIL import Image

from service.dataset.candidates import Rejection
from service.dataset.images.decoding import decode, quiet_decoders
from service.dataset.images.formats import formats_with
from service.dataset.images.resizing import shaped
from service.dataset.images.screening import pixel_hash
from service.dataset.selection import without_fragment
from service.diffusion.looks import Look, look_of
from service.exits import MissingInput
from service.settings.data_prep import DECODERS, installed
from service.settings.marks import SHA256, URL
from service.storage.opening import read_file_at


class Form(NamedTuple):
    """What an image is in a data set: the hash of its pixels there, and its look."""

    sha256: str
    look: Look


@dataclass(frozen=True)
class Sought:
    """An image as a person named it. hashes: of its file or its pixels; picture: what it shows, where its file was given."""

    name: str
    addresses: frozenset[str] = frozenset()
    hashes: frozenset[str] = frozenset()
    picture: Image.Image | None = None

    @property
    def marks(self) -> set[str]:
        """All that it is known by, as DATA_PREP_EXCLUDE takes it."""
        looks = set() if self.picture is None else {str(look_of(self.picture))}
        return {*self.addresses, *self.hashes, *looks}

    def in_shape_of(self, recipe: Mapping[str, Any]) -> Form | None:
        """What it would be in a data set of this recipe; None where its pixels are not known."""
        if self.picture is None:
            return None
        image = shaped(
            self.picture,
            square=recipe.get("square", "keep"),
            side=recipe.get("side"),
            enlarge=recipe.get("enlarge", "nearest"),
            shrink=recipe.get("shrink", "lanczos"),
        )
        return Form(pixel_hash(image), look_of(image))


def sought(named: str, setting: str) -> Sought:
    """The image that a person names by its URL, by a sha256, or by a file, local or s3://. setting: where, for messages.

    A file that shows nothing is looked for by its bytes alone. Raises MissingInput for one that does not exist.
    """
    if SHA256.fullmatch(named.lower()):
        return Sought(named, hashes=frozenset({named.lower()}))
    if URL.fullmatch(named):
        return Sought(named, addresses=frozenset({named, without_fragment(named)}))
    content = _content(named, setting)
    return Sought(named, hashes=frozenset({hashlib.sha256(content).hexdigest()}), picture=_picture(content))


def _content(file: str, setting: str) -> bytes:
    try:
        return read_file_at(file, setting)
    except MissingInput as error:
        raise MissingInput(f"{error}; nor is it a URL, or a sha256 of 64 digits") from error


def _picture(content: bytes) -> Image.Image | None:
    try:
        with quiet_decoders():
            return decode(content, _all_formats()).image
    except Rejection:
        return None


def _all_formats() -> tuple[str, ...]:
    """All formats that data-prep may have opened, as far as their decoders are installed here."""
    words: list[str] = []
    for word in DECODERS:
        with suppress(ValueError):
            words += installed([word])
    return formats_with(tuple(words))
