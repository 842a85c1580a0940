"""`sdlora trace`: from an image to all that descends from it."""

import structlog

from service import stopping
from service.artifacts.kinds import exclusions
from service.exits import BadConfiguration
from service.lineage.sought import sought
from service.lineage.trace_text import tables
from service.lineage.tracing import archive_of, exclusion_of
from service.lineage.tracing import trace as traced
from service.outcome import add_facts
from service.settings.trace import TraceSettings
from service.storage.opening import open_store
from service.terminal import tell

log = structlog.get_logger(__name__)


def trace(settings: TraceSettings) -> None:
    """Writes what descends from the image to standard output, as tables or as JSON; with TRACE_EXCLUDE, withdraws it.

    Raises MissingInput for a file that does not exist, and BadData, after telling what is known, when something in the store
    cannot be read: it may descend from the image as well.
    """
    if settings.image is None:
        raise BadConfiguration("trace needs an image: `sdlora trace IMAGE`, or TRACE_IMAGE: a file, a sha256 or a URL")
    store = open_store(settings.artifacts_uri)
    image = sought(settings.image, "TRACE_IMAGE")
    found = traced(image, archive_of(store, stopping.check), look_alikes=settings.look_alikes == "include")
    add_facts(datasets=sum(one.holds for one in found.datasets), loras=len(found.loras), champions=len(found.champions))
    tell(found, tables, as_json=settings.as_json)
    if settings.exclude:
        record = exclusions.add(store, exclusion_of(found, settings.exclude))
        log.info("withdrawn from all further data sets", image=settings.image, record=record)
    found.check_complete()
