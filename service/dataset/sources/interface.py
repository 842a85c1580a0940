"""What a source of images can do."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from service.dataset.candidates import Candidate

Read = Callable[[Candidate], Awaitable[bytes | Path]]
"""The bytes of a candidate, or the local file that holds them. Raises Rejection."""


class Source(Protocol):
    """A place with images. `parents` are the published artifacts that they come from.

    `state` stands for the content now: it changes when the list of candidates does. It is empty for a search, which
    answers differently from one day to the next. `reading` lends the means to read candidates, for many at once.
    """

    parents: list[str]

    def state(self) -> str: ...

    def candidates(self) -> list[Candidate]: ...

    def reading(self) -> AbstractAsyncContextManager[Read]: ...
