"""`sdlora data-prep`: images in, a captioned, checked and published data set out."""

from service.artifacts.publishing import publish_version
from service.artifacts.runs import Run
from service.artifacts.scratch import scratch_folder
from service.artifacts.stores import open_store
from service.dataset.captioning import caption
from service.dataset.imagefolder import check_loads_back, write_dataset
from service.dataset.screening import require_enough, screen
from service.dataset.sources import collect
from service.dataset.splitting import held_out
from service.settings.data_prep import DataPrepSettings


def data_prep(settings: DataPrepSettings) -> str:
    """Publishes a data set of the images that the settings name, and gives its path.

    Raises MissingInput when the source does not exist and BadData when it has too few good images; nothing is published
    then. The same images, captioner and settings give the same path again.
    """
    store = open_store(settings.artifacts_uri)
    with scratch_folder(settings.work_dir) as scratch:
        collection = collect(settings, store)
        records = screen(collection.candidates, settings, scratch / "accepted")
        require_enough(records, settings)  # before the captioner takes its time

        records, captions = caption(records, settings)
        require_enough(records, settings)
        validation = held_out(list(captions), settings.validation_share)

        dataset = scratch / "dataset"
        rows = write_dataset(records, captions, validation, dataset)
        check_loads_back(dataset, rows, scratch / "cache")

        artifact = publish_version(
            store,
            dataset,
            kind="dataset",
            prefix=f"datasets/{settings.name}",
            parents=collection.parents,
            settings=settings.recipe(),
        )
    Run(store, settings.run_id).remember_dataset(artifact.path)
    return artifact.path
