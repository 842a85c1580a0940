"""`sdlora data-prep`: images in, a captioned, checked and published data set out."""

from collections import Counter
from collections.abc import Sequence
from io import BytesIO
from math import ceil
from typing import Any

import structlog
from PIL import Image

from service import stopping
from service.artifacts.kinds.dataset import REPORT, sizes, write
from service.artifacts.runs import Run
from service.dataset.candidates import Candidate, Record
from service.dataset.captions.captioning import captions_for
from service.dataset.collecting import collect
from service.dataset.exclusion import Excluded, excluded_by, with_all_named
from service.dataset.imagefolder import check_loads_back, write_caption_files, write_dataset
from service.dataset.notes import Note
from service.dataset.preparation import Preparation
from service.dataset.report.contact_sheets import accepted_tiles, rejected_tiles
from service.dataset.report.page import write_dataset_report
from service.dataset.selection import Criteria, look_alike_groups, plan, select, shard_of
from service.dataset.sources.interface import Source
from service.dataset.sources.opening import open_source
from service.dataset.splitting import held_out
from service.dataset.sufficiency import require_enough, without_uncaptioned
from service.outcome import add_facts
from service.settings.data_prep import UNTOLD, DataPrepSettings
from service.settings.identity import for_key, identity
from service.settings.models import FamilySettings
from service.storage.interface import NotFound, ObjectStore
from service.storage.opening import open_store
from service.storage.scratch import scratch_folder

log = structlog.get_logger(__name__)


def data_prep(settings: DataPrepSettings) -> str | None:
    """Publishes a data set of the images that the settings name, and gives its path; None after a mere shard.

    Raises MissingInput when the source does not exist or a shard is not done, and BadData when there are too few good
    images; nothing is published then. The same images, captioner and settings give the same path again.
    """
    store = open_store(settings.artifacts_uri)
    source = open_source(settings, store)
    excluded = excluded_by(settings, store)
    settings = with_all_named(settings, excluded)
    preparation = Preparation(Run(store, settings.run_id), settings, source)
    if (path := preparation.published()) is not None:
        return _reported(_already_prepared(path, preparation), store)

    candidates, settled = plan(preparation.candidates(source), settings.max_candidates)
    if settings.step in ("all", "shard"):
        _prepare_shard(candidates, source, excluded, preparation=preparation, settings=settings, store=store)
    if settings.step == "shard":
        return None
    try:
        records = [*preparation.shard_records(candidates, settings.shards), *settled]
        records = excluded.applied(records)
        return _reported(_finalize(records, source, preparation=preparation, settings=settings, store=store), store)
    except NotFound:
        # Kubernetes may start a pod twice: what the other one has published, it has also cleared away.
        if (path := preparation.published()) is not None:
            return _reported(_already_prepared(path, preparation), store)
        raise


def _reported(path: str, store: ObjectStore) -> str:
    """The path of the data set, with its size in the outcome."""
    size = sizes(store, path)
    add_facts(images=sum(size.values()), held_out=size["validation"], version=path.rpartition("/")[2])
    return path


def _already_prepared(path: str, preparation: Preparation) -> str:
    """The data set of an earlier start, which may have been killed before it was through with clearing away."""
    preparation.finish(path)
    log.info("already prepared", path=path)
    return path


def _prepare_shard(
    candidates: Sequence[Candidate],
    source: Source,
    excluded: Excluded,
    *,
    preparation: Preparation,
    settings: DataPrepSettings,
    store: ObjectStore,
) -> None:
    """Collects this process's share of the candidates, and captions those that are likely to be needed."""
    allowed, left_out = excluded.parted(shard_of(candidates, settings.shard, settings.shards))
    records = [*collect(allowed, source, preparation, settings), *left_out]

    def image_of(record: Record) -> Image.Image:
        return _image_of(record, preparation)

    if settings.min_relevance:
        with stopping.nothing_to_save():
            from service.dataset.images.relevance import with_relevance  # torch takes seconds to import

        records = with_relevance(records, image_of, settings)
    if settings.shards > 1:
        # Into the cache of captions; what the merge wants besides, it captions itself.
        share = ceil(settings.limit / settings.shards)
        likely = select(excluded.applied(records), _criteria(settings)._replace(limit=share))
        captions_for(likely, image_of, settings, store)
    preparation.finish_shard(settings.shard, settings.shards, records)
    log.info("shard done", shard=settings.shard, of=settings.shards, candidates=len(records))
    if settings.step == "shard":
        add_facts(shard=settings.shard, shards=settings.shards, candidates=len(records))


def _finalize(
    records: Sequence[Record],
    source: Source,
    *,
    preparation: Preparation,
    settings: DataPrepSettings,
    store: ObjectStore,
) -> str:
    """Drops duplicates across the shards, captions, splits, checks and publishes."""
    records = select(records, _criteria(settings))
    require_enough(records, source.place, settings.min_images)  # before the captioner takes its time
    captions, changed = captions_for(records, lambda record: _image_of(record, preparation), settings, store)
    notes = source.notes() + changed
    records = without_uncaptioned(records, captions)
    _report_choice(records, notes)
    require_enough(records, source.place, settings.min_images)
    alike = look_alike_groups(records, settings.near_distance)
    validation = held_out([[record.sha256 for record in group] for group in alike], settings.validation_share)

    with scratch_folder(settings.work_dir) as scratch:
        dataset = scratch / "dataset"
        rows = write_dataset(dataset, records, captions=captions, validation=validation, download=preparation.download)
        if settings.caption_files == "txt":
            write_caption_files(dataset, rows)
        check_loads_back(dataset, rows, scratch / "cache")
        write_dataset_report(
            dataset / REPORT,
            name=settings.name,
            style=settings.style,
            records=records,
            captions=captions,
            accepted=accepted_tiles(rows, preparation),
            rejected=rejected_tiles(records, preparation),
            held_out=len(validation),
            notes=notes,
            settings=_shown(settings),
        )
        recipe = identity(settings)
        artifact = write(
            store, dataset, name=settings.name, parents=source.parents, recipe=recipe, stop_check=stopping.check
        )
    preparation.finish(artifact.path)
    return artifact.path


def _report_choice(records: Sequence[Record], notes: Counter[Note]) -> None:
    """Into the outcome: what became of the candidates, and whose captions there are."""
    left_out = Counter(str(record.reason) for record in records if record.reason is not None)
    own = sum(record.reason is None and bool(record.candidate.caption) for record in records)
    add_facts(candidates=len(records), left_out=dict(left_out.most_common()), own_captions=own)
    if notes:
        add_facts(captions_changed={str(note): count for note, count in notes.items()})


def _shown(settings: DataPrepSettings) -> dict[str, Any]:
    """What the page lists, whose bytes are part of the data set's version.

    Where the images lie is left out, so that the same ones from another folder are the same data set, and so is the list of
    excluded images, most of which have nothing to do with this one; and the whole family of models is named, as on every
    page before, and settings that are younger than others only where they are used, so that they still are after an upgrade.
    """
    family = FamilySettings(model_base=settings.model_base)
    models = {name for model in family.known_models() for name in (model, f"{model}_revision")}
    values = family.public() | settings.public()
    shown = for_key(DataPrepSettings, identity(settings)).keys()
    return {name: values[name] for name in models | shown - UNTOLD}


def _criteria(settings: DataPrepSettings) -> Criteria:
    return Criteria(
        limit=settings.limit,
        near_duplicates=settings.near_duplicates,
        near_distance=settings.near_distance,
        min_relevance=settings.min_relevance,
    )


def _image_of(record: Record, preparation: Preparation) -> Image.Image:
    return Image.open(BytesIO(preparation.image(record)))
