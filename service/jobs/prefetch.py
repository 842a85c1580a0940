"""`sdlora prefetch`: the models that the jobs load, mirrored from the hub into the store."""

import shutil

import structlog

from service import stopping
from service.artifacts.kinds import model
from service.artifacts.layout import Model, Models
from service.artifacts.publishing import list_artifacts
from service.checks.models import models_of
from service.diffusion.hub import files_on_hub
from service.diffusion.mirror import check_complete, collect, needed, unpickled
from service.diffusion.models import place_of
from service.exits import BadConfiguration
from service.outcome import add_facts
from service.settings.models import OF_BASE, is_public
from service.settings.prefetch import PrefetchSettings
from service.storage.disk import disk_errors, one_at_a_time
from service.storage.interface import ObjectStore
from service.storage.opening import open_store

log = structlog.get_logger(__name__)


def prefetch(settings: PrefetchSettings) -> None:
    """Publishes each model under `models/<id>/<revision>`, where the jobs look before they ask the hub.

    Models that no hub has (folders, buckets, the miniature) need nothing. What is mirrored already is not asked for again.
    Raises BadConfiguration for a model that is not pinned to a commit, and in offline mode.
    """
    store = open_store(settings.artifacts_uri)
    there = set(list_artifacts(store, Models().path))
    places = {field: place for field in fields_of(settings) if (place := mirrored_at(settings, field))}
    for field, place in places.items():
        if place.path in there:
            log.info("already mirrored", model=place.model, revision=place.revision)
        else:
            mirror(store, place, f"{field.upper()}={place.model} at revision {place.revision}", settings)
            there.add(place.path)
    paths = sorted({place.path for place in places.values()})
    add_facts(models=paths)
    log.info("all models are in the store", models=paths)


def fields_of(settings: PrefetchSettings) -> list[str]:
    """The settings that name the models which the jobs load, each once."""
    return list(dict.fromkeys(field for job in settings.jobs for field in models_of(job)))


def mirrored_at(settings: PrefetchSettings, field: str) -> Model | None:
    """Where the mirror of the model belongs; None for one that is none of the hub's."""
    name = str(getattr(settings, field))
    place = place_of(settings, field)
    if place is None and name not in ("miniature", OF_BASE) and is_public(name):
        raise BadConfiguration(
            f"{field.upper()}={name} is not pinned: set {field.upper()}_REVISION to the 40 digits of a commit, not "
            f"{getattr(settings, f'{field}_revision')!r}"
        )
    return place


def mirror(store: ObjectStore, place: Model, where: str, settings: PrefetchSettings) -> None:
    """Downloads a model, checks it against the hub's hashes, and publishes it. What an earlier start has of it is kept."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise BadConfiguration(f"HF_HUB_OFFLINE is set, and {where} is to come from the hub; unset it for prefetch")
    with stopping.nothing_to_save():
        files = needed(files_on_hub(place.model, place.revision, where))
    check_complete(files, where)
    log.info("mirroring", model=place.model, files=len(files), bytes=sum(file.size for file in files))
    scratch = settings.work_dir / "prefetch" / place.path
    with disk_errors(scratch, "WORK_DIR"), one_at_a_time(scratch, stopping.check):
        folder = collect(place.model, place.revision, files, scratch, where)
        stopping.check()
        read_from = unpickled(folder)
        model.write(store, folder, model=place.model, revision=place.revision, read_from=read_from)
        shutil.rmtree(scratch)
