"""`sdlora diff`: what changed from one data set to another."""

from service.exits import BadConfiguration
from service.lineage.difference import difference
from service.lineage.difference_text import tables
from service.lineage.listing import listing
from service.outcome import add_facts
from service.settings.diff import DiffSettings
from service.storage.opening import open_store
from service.terminal import tell


def diff(settings: DiffSettings) -> None:
    """Writes the difference to standard output, as tables or as JSON.

    Raises BadConfiguration when the data sets are not named, MissingInput when one does not exist.
    """
    if settings.before is None or settings.after is None:
        raise BadConfiguration(
            "diff compares two data sets: `sdlora diff datasets/NAME/VERSION datasets/NAME/VERSION`, or DIFF_BEFORE and "
            "DIFF_AFTER"
        )
    store = open_store(settings.artifacts_uri)
    found = difference(listing(store, settings.before), listing(store, settings.after))
    counted = {name: len(getattr(found, name)) for name in ("added", "gone", "recaptioned", "moved")}
    add_facts(**counted)
    tell(found, tables, as_json=settings.as_json)
