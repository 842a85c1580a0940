"""A model of the hub to a folder that can be published: what loads it and nothing else, each file what the hub says it is.

Weights are safetensors alone. Of a model that the hub has as a pickle only, the tensors are read out of it, by an unpickler
that makes nothing but tensors, and written as safetensors under the name by which the libraries look for them.
"""

import os
import pickle
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import structlog

from service import stopping
from service.diffusion.hub import HubFile, download
from service.exits import BadData, MissingInput

INDEX = "model_index.json"
"""At the root of a model that has its parts in folders."""
NEVER_LOADED = ("safety_checker",)
WEIGHTS = re.compile(r"(model|diffusion_pytorch_model)(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")
PICKLES = {
    "pytorch_model.bin": "model.safetensors",
    "diffusion_pytorch_model.bin": "diffusion_pytorch_model.safetensors",
}
"""Under which names the libraries look for the same weights as safetensors."""
TEXTS = (".json", ".txt", ".model", ".jinja")
READINGS = 3
"""How often a file must come wrong to be called wrong."""

log = structlog.get_logger(__name__)


def needed(files: Sequence[HubFile]) -> list[HubFile]:
    """Those of a model's files that are loaded: of each folder the texts, and the weights in full precision, in one form.

    With an index, the parts lie in folders, and what else lies at the root are the same weights for other programs.
    """
    in_parts = any(file.path == INDEX for file in files)
    folders: dict[str, list[HubFile]] = {}
    for file in files:
        folder = str(PurePosixPath(file.path).parent)
        if folder == "." if not in_parts else folder.count("/") == 0 and folder not in (".", *NEVER_LOADED):
            folders.setdefault(folder, []).append(file)
    chosen = [file for file in files if in_parts and file.path == INDEX]
    return sorted(
        chosen + [file for inside in folders.values() for file in _of_folder(inside)], key=lambda file: file.path
    )


def _of_folder(files: Sequence[HubFile]) -> list[HubFile]:
    names = {PurePosixPath(file.path).name: file for file in files}
    weights = [file for name, file in names.items() if WEIGHTS.fullmatch(name)]
    weights = weights or [file for name, file in names.items() if name in PICKLES]
    texts = [file for name, file in names.items() if name.endswith(TEXTS) and ".index." not in name]
    return texts + weights


def check_complete(files: Sequence[HubFile], where: str) -> None:
    """Raises MissingInput for a model without weights that can be mirrored, BadData for a file without a hash."""
    if not any(file.path.endswith((".safetensors", *PICKLES)) for file in files):
        raise MissingInput(
            f"{where} has neither safetensors on the hub nor one pickle of its weights; name another revision, or give a "
            "folder with the model"
        )
    if unknown := [file.path for file in files if not (file.sha256 or file.sha1)]:
        raise BadData(f"{where}: the hub tells no hash of {unknown[0]}, so that it cannot be checked")


def collect(model: str, revision: str, files: Sequence[HubFile], folder: Path, where: str) -> Path:
    """Downloads the files below `folder` and gives the folder that has them, and them alone. What is there already is kept.

    where: the variable, the model and its revision, for messages. Raises Stopped as soon as the process is asked to stop.
    """
    made, wanted = folder / "files", {file.path for file in files}
    for stray in [
        path for path in made.rglob("*") if path.is_file() and path.relative_to(made).as_posix() not in wanted
    ]:
        stray.unlink()  # of a start that was killed while it read weights out of a pickle, or of an older version
    for file in files:
        target = made / file.path
        with stopping.nothing_to_save():  # what has come of a file is on the disk
            if not file.is_whole(target):
                copy = _right_copy(model, revision, file, folder / "download", where)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(copy, target)
                log.info("downloaded", model=model, file=file.path, bytes=file.size)
    return made


def _right_copy(model: str, revision: str, file: HubFile, folder: Path, where: str) -> Path:
    copy = folder / file.path
    copy.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(READINGS):
        download(model, revision, file, copy, where)
        if file.is_whole(copy):
            return copy
        copy.unlink()
        log.warning("not what the hub says it is, downloaded again", model=model, file=file.path)
    raise BadData(
        f"{where}: {file.path} comes with another content than the hub says it has, {READINGS} times; nothing was mirrored: "
        "look what stands between, or name another HF_ENDPOINT"
    )


def unpickled(folder: Path) -> dict[str, str]:
    """Writes safetensors in the place of each pickle below `folder`. Returns which was read from which.

    Raises BadData for a pickle that holds anything but tensors by name.
    """
    read_from = {}
    for pickled in sorted(file for name in PICKLES for file in folder.rglob(name)):
        target = pickled.with_name(PICKLES[pickled.name])
        _convert(pickled, target)
        read_from[target.relative_to(folder).as_posix()] = pickled.relative_to(folder).as_posix()
    return read_from


def _convert(pickled: Path, target: Path) -> None:
    import torch
    from safetensors.torch import save_file

    with stopping.nothing_to_save():
        try:
            content = torch.load(pickled, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
            raise BadData(
                f"{pickled.name} holds more than tensors, or none that can be read; it is not mirrored"
            ) from error
        if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
            raise BadData(f"{pickled.name} holds something else than tensors by name; it is not mirrored")
        # Tensors that share their memory are written each for itself: the format has no other way.
        tensors = {str(name): tensor.contiguous().clone() for name, tensor in content.items()}
        save_file(tensors, target, metadata={"format": "pt"})
        pickled.unlink()
