"""LoRA files from elsewhere: published as artifacts first, so that whatever is made with them can name them."""

from pathlib import Path

import structlog

from service.artifacts.kinds.lora import Lora, read, write_imported
from service.artifacts.runs import Run
from service.diffusion.lora import WEIGHTS_NAME, check_lora
from service.exits import MissingInput
from service.settings.places import LORA_SUFFIX
from service.storage.interface import ObjectStore
from service.storage.opening import open_store
from service.storage.scratch import scratch_folder

log = structlog.get_logger(__name__)


def lora_of(run: Run, named: str | None, work_dir: Path) -> Lora:
    """The LoRA that a setting names: the path of an artifact, or a file; without a name, the one that the run trained.

    A file ends in .safetensors, and is local or an s3:// URI. It is published below loras/ by its content, once.
    Raises NotFound or MissingInput where there is none, BadData for a file that is no LoRA or has weights that are not finite.
    """
    if named is None or not named.endswith(LORA_SUFFIX):
        return read(run.store, named or run.lora_path)
    return read(run.store, import_lora(run.store, named, work_dir))


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
