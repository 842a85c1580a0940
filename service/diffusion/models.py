"""Where a model's files are: the miniature, a local folder, an s3:// mirror, or the hub at a pinned revision."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from service import miniature, stopping
from service.artifacts.fetching import fetch
from service.diffusion.hub import ask_hub, hub_error, in_cache
from service.exits import BadData, MissingInput
from service.settings.models import MINIATURE, OF_BASE, ModelSettings
from service.storage.opening import open_store

log = structlog.get_logger(__name__)

MINIATURE_FOLDERS = {
    "model_base": miniature.STABLE_DIFFUSION,
    "model_vae": miniature.STABLE_DIFFUSION / "vae",
    "model_captioner": miniature.CAPTIONER,
    "model_clip": miniature.CLIP,
}


@dataclass(frozen=True)
class ModelFiles:
    """What `from_pretrained` needs: `Model.from_pretrained(files.name, **files.options)`.

    `variable` is the setting that named the model, for error messages.
    """

    variable: str
    name: str
    options: dict[str, Any]


def locate_model(settings: ModelSettings, field: str) -> ModelFiles:
    """Resolves the model that the setting `field` (such as "model_base") names; an s3:// mirror is fetched and verified.

    Raises MissingInput for a folder that does not exist; what can be no model's name is refused where it is set.
    """
    name = str(getattr(settings, field))
    variable = field.upper()
    if name == MINIATURE:
        return ModelFiles(variable, str(MINIATURE_FOLDERS[field]), {"local_files_only": True})
    if field == "model_vae" and name == OF_BASE:
        base = locate_model(settings, "model_base")
        return ModelFiles(variable, base.name, {**base.options, "subfolder": "vae"})
    if name.startswith("s3://"):
        folder = fetch(open_store(name), "", settings.work_dir, stopping.check)
        return ModelFiles(variable, str(folder), {"local_files_only": True})
    if Path(name).is_dir():
        return ModelFiles(variable, name, {"local_files_only": True})
    if name.startswith((".", "/", "~")):
        raise MissingInput(f"{variable}={name} is a folder that does not exist")
    return ModelFiles(variable, name, {"revision": getattr(settings, f"{field}_revision")})


@contextmanager
def loading(files: ModelFiles) -> Iterator[None]:
    """Turns the many ways in which `from_pretrained` fails into one line that names the setting.

    A hub is asked first whether it has the model: the libraries would say nothing for minutes. Raises StorageUnreachable for
    one that does not answer, MissingInput and AccessDenied for what it answers, BadData for files that hold no model.
    """
    revision = files.options.get("revision")
    where = f"{files.variable}={files.name} at revision {revision}"
    with stopping.nothing_to_save():
        if revision and not in_cache(files.name, revision):
            log.info("asking the model hub", model=files.name)
            ask_hub(files.name, revision, where)
        try:
            yield
        except Exception as error:
            if revision and (meaning := hub_error(error, where)):
                raise meaning from error
            if not isinstance(error, OSError | ValueError):
                raise
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            if revision:
                raise MissingInput(
                    f"{where} cannot be loaded from the hub: {reason} (use a folder, an s3:// mirror, or `miniature` where "
                    "there is no network)"
                ) from error
            raise BadData(f"{files.variable}: {files.name} does not hold a model that loads: {reason}") from error
