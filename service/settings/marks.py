"""What an image is known by: its address, a hash of its bytes or pixels, or its look."""

import re
from typing import Annotated

from pydantic import AfterValidator

from service.settings.common import StringList

SHA256 = re.compile(r"[0-9a-f]{64}")
"""Of a file as it came, of a file in a data set, or of an image's pixels."""
URL = re.compile(r"https?://\S+", re.IGNORECASE)
LOOK = re.compile(r"[0-9a-f]{16}:[0-9a-f]{16}:[0-9a-f]{6}")
"""Perceptual hash, difference hash and mean colour, as provenance tells them: near for copies in other sizes and formats."""


def is_mark(text: str) -> bool:
    """Whether an image can be known by it."""
    return any(form.fullmatch(text) for form in (SHA256, URL, LOOK))


def checked_mark(text: str) -> str:
    """The mark itself; raises ValueError for what no image can be known by."""
    if not is_mark(text):
        raise ValueError(f"{text!r} is no sha256, no URL and no look (phash:dhash:colour); write it in full")
    return text


Mark = Annotated[str, AfterValidator(checked_mark)]
Marks = Annotated[StringList, AfterValidator(lambda marks: [checked_mark(mark) for mark in marks])]
