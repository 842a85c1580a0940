"""Which images of a data set were withdrawn after it was made."""

from service.artifacts.kinds import exclusions
from service.artifacts.publishing import read_manifest
from service.lineage.listing import provenance
from service.lineage.tracing import known, marks_of
from service.storage.interface import NotFound, ObjectStore


def withdrawn_images(store: ObjectStore, dataset: str) -> dict[str, str]:
    """Files of the data set that a record in the store withdraws, by all that they are known by, and why; sorted by name.

    Empty for a data set that is no longer there. Raises BadData when its provenance, or a record, cannot be read.
    """
    reasons = exclusions.reasons(exclusions.read_all(store))
    if not reasons:
        return {}
    try:
        manifest = read_manifest(store, dataset)
        images = known(dataset, manifest, provenance(store, dataset, manifest))
    except NotFound:
        return {}
    found = {
        entry.file_name: reasons[mark]
        for entry in images.entries
        if entry.file_name
        for mark in [*marks_of(images, entry), *([entry.page] if entry.page else [])]
        if mark in reasons
    }
    return dict(sorted(found.items()))
