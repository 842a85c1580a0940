"""LoRA files from elsewhere: published as artifacts first, so that whatever is made with them can name them."""

from pathlib import Path

import structlog

from service.artifacts.history import champion_of
from service.artifacts.kinds.lora import Lora, of_run, read, write_imported
from service.artifacts.runs import Run
from service.diffusion.lora import WEIGHTS_NAME, check_lora
from service.exits import BadData, MissingInput
from service.settings.places import LORA_SUFFIX, OF_THE_REGISTRY
from service.storage.interface import ObjectStore
from service.storage.opening import open_store
from service.storage.scratch import scratch_folder

log = structlog.get_logger(__name__)


def lora_of(run: Run, named: str | None, work_dir: Path) -> Lora:
    """The LoRA that a setting names: the path of an artifact, or a file; without a name, the one of the run.

    A file ends in .safetensors, and is local or an s3:// URI. It is published below loras/ by its content, once.
    `registry:` and the name of a model is its champion of now, with the strength of its entry.
    Raises NotFound or MissingInput where there is none, BadData for a file that is no LoRA or has weights that are not finite,
    and for a champion that is another LoRA by now.
    """
    if named is not None and named.startswith(OF_THE_REGISTRY):
        return _champion(run.store, named.removeprefix(OF_THE_REGISTRY))
    if named is None or not named.endswith(LORA_SUFFIX):
        return read(run.store, named) if named else _own(run)
    return read(run.store, import_lora(run.store, named, work_dir))


def _own(run: Run) -> Lora:
    lora = of_run(run.store, run.run_id)
    if lora.capped_at is not None:
        log.warning("the run's training was ended by a limit; its best LoRA so far is taken", lora=lora.path)
    return lora


def _champion(store: ObjectStore, model: str) -> Lora:
    entry = champion_of(store, model)
    lora = read(store, entry.lora or "").model_copy(update={"scale": entry.scale})
    if lora.version != entry.version:
        raise BadData(
            f"the champion of {model} is {entry.lora} in version {entry.version}; there is {lora.version} now"
        )
    log.info("champion", model=model, lora=lora.path, version=lora.version, scale=lora.scale)
    return lora


def import_lora(store: ObjectStore, file: str, work_dir: Path) -> str:
    """Publishes a LoRA file, in the form of diffusers, kohya or what else diffusers converts. Returns the artifact's path."""
    with scratch_folder(work_dir) as folder:
        copy = folder / WEIGHTS_NAME
        copy.write_bytes(_content(file))
        check_lora(copy)
        path = write_imported(store, folder, file=Path(file).name).path
    log.info("LoRA from elsewhere", file=file, lora=path)
    return path


def _content(file: str) -> bytes:
    if file.startswith("s3://"):
        folder, _, name = file.rpartition("/")
        return open_store(folder).get(name)
    if not Path(file).is_file():
        raise MissingInput(f"the LoRA file {file} does not exist")
    return Path(file).read_bytes()
