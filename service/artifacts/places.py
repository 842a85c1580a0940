"""A kind of path, declared once as a class: its template gives `path` as well as `parse`, so that the two cannot disagree.

class Book(Place, template="shelves/{shelf}/book-{number:04d}"):
    shelf: str
    number: int

Book("poems", 7).path                         "shelves/poems/book-0007"
Book.parse("shelves/poems/book-0007").number  7
"""

import re
import string
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, ClassVar, Self, dataclass_transform

from service.exits import BadConfiguration
from service.storage.keys import checked_key

PARTS = {
    "version": r"[0-9a-f]{16}",
    "revision": r"[0-9a-f]{16,64}",
    "model": r".+?",  # a hub's id has a slash in it
    "step": r"\d+",
    "rank": r"\d+",
    "index": r"\d+",
    "count": r"\d+",
    "number": r"\d+",
    "round": r"\d+",
}
"""What a part of a path looks like; any other is one name without a slash."""
ANY_NAME = r"[^/]+"


@dataclass_transform(frozen_default=True)
class Place:
    """A path of the layout. `template` has the class's fields in braces.

    `swept`: below it is nothing but one artifact, or what becomes one. What lies there without a manifest, and has not been
    written to for a day, was left by a writer that was killed, and retention deletes it.
    """

    template: ClassVar[str]
    swept: ClassVar[bool]

    def __init_subclass__(cls, template: str, swept: bool = False) -> None:
        cls.template, cls.swept = template, swept
        dataclass(frozen=True)(cls)

    @property
    def path(self) -> str:
        """The path below ARTIFACTS_URI. Raises BadConfiguration for a part that cannot stand where it should."""
        path = checked_key(self.template.format(**vars(self)))
        if self.parse(path) != self:
            raise BadConfiguration(f"{path!r} is no path of the form {self.template}")
        return path

    @classmethod
    def parse(cls, path: str) -> Self | None:
        """The parts of a path of this kind; None for any other path."""
        match = re.fullmatch(_pattern(cls.template, named=True), path)
        return cls._of(match) if match else None

    @classmethod
    def around(cls, key: str) -> Self | None:
        """The path of this kind that `key` lies below; None when it lies elsewhere."""
        match = re.match(_pattern(cls.template, named=True) + "/", key)
        return cls._of(match) if match else None

    @classmethod
    def _of(cls, match: re.Match[str]) -> Self:
        values: dict[str, Any] = match.groupdict()
        return cls(**{field.name: int(values[field.name]) if field.type is int else values[field.name]
                      for field in fields(cls)})  # type: ignore[arg-type]  # fmt: skip


@cache
def _pattern(template: str, *, named: bool) -> str:
    """The regular expression of a template; its groups bear names only where one expression has each of them once."""
    pattern = ""
    for literal, name, _, _ in string.Formatter().parse(template):
        pattern += re.escape(literal)
        if name:
            part = PARTS.get(name, ANY_NAME)
            pattern += f"(?P<{name}>{part})" if named else f"(?:{part})"
    return pattern


def places_of(module: str) -> tuple[type[Place], ...]:
    """The kinds of paths that a module declares, in the order in which it does."""
    return tuple(place for place in Place.__subclasses__() if place.__module__ == module)


def any_of(places: Iterable[type[Place]]) -> re.Pattern[str]:
    """Matches a key that lies below a path of one of these kinds; that path is the first group."""
    return re.compile("(" + "|".join(_pattern(place.template, named=False) for place in places) + ")/")
