"""What a source of images can do."""

from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

from service.dataset.candidates import Candidate
from service.dataset.notes import Note

Read = Callable[[Candidate], Awaitable[bytes | Path]]
"""The bytes of a candidate, or the local file that holds them. Raises Rejection."""


class Captioned(NamedTuple):
    """Candidates with the captions that a source has of them, and how often one was not taken as it came."""

    candidates: list[Candidate]
    notes: Counter[Note]


class Source(Protocol):
    """A place with images. `place` names it in messages: the variable that says where it is, with its value. `parents`
    are the published artifacts that the images come from.

    `state` stands for the content now: it changes when the list of candidates does. It is empty for a search, which
    answers differently from one day to the next. `notes` counts what of its captions was not taken as it came. `reading`
    lends the means to read candidates, for many at once.
    """

    place: str
    parents: list[str]

    def state(self) -> str: ...

    def candidates(self) -> list[Candidate]: ...

    def notes(self) -> Counter[Note]: ...

    def reading(self) -> AbstractAsyncContextManager[Read]: ...
