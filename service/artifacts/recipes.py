"""Where the result of a recipe is, whichever version of this program made it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from service.artifacts.keys import content_key
from service.artifacts.places import Place
from service.artifacts.publishing import find_made
from service.artifacts.runs import Run
from service.settings.common import CommonSettings
from service.settings.identity import for_key, same


class Result(NamedTuple):
    """Where the artifact of a recipe is, or belongs while it is not `made`. key: stands for the recipe in paths."""

    path: str
    key: str
    made: bool


def result_of(
    run: Run, place: Callable[[str, str], Place], settings: CommonSettings, recipe: Mapping[str, Any]
) -> Result:
    """place: of the layout, by run and key, such as `layout.Images`; recipe: an identity of `settings`."""
    key = content_key(for_key(type(settings), recipe))
    path = place(run.run_id, key).path
    made = find_made(run.store, path, lambda stored: same(type(settings), stored, recipe))
    return Result(made or path, key, made is not None)
