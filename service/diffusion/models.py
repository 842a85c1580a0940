"""Where a model's files are: the miniature, a local folder, a mirror in a store, or the hub at a pinned revision."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from service import miniature, stopping
from service.artifacts.fetching import fetch
from service.artifacts.layout import Model
from service.artifacts.publishing import exists
from service.diffusion.hub import ask_hub, hub_error, in_cache
from service.exits import BadData, MissingInput
from service.settings.models import MINIATURE, OF_BASE, ModelSettings
from service.storage.interface import ObjectStore
from service.storage.opening import open_store

log = structlog.get_logger(__name__)

MINIATURE_FOLDERS = {
    "model_base": miniature.STABLE_DIFFUSION,
    "model_vae": miniature.STABLE_DIFFUSION / "vae",
    "model_captioner": miniature.CAPTIONER,
    "model_clip": miniature.CLIP,
}


ON_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class ModelFiles:
    """What `from_pretrained` needs: `Model.from_pretrained(files.name, **files.options)`.

    `variable` is the setting that named the model, for error messages; `pinned`: id and commit, wherever the files of them
    come from.
    """

    variable: str
    name: str
    options: dict[str, Any]
    pinned: str = ""


def locate_model(settings: ModelSettings, field: str) -> ModelFiles:
    """Resolves the model that the setting `field` (such as "model_base") names; a mirror is fetched and verified.

    Raises MissingInput for a folder that does not exist; what can be no model's name is refused where it is set.
    """
    name = str(getattr(settings, field))
    variable = field.upper()
    if name == MINIATURE:
        return ModelFiles(variable, str(MINIATURE_FOLDERS[field]), {"local_files_only": True})
    if field == "model_vae" and name == OF_BASE:
        base = locate_model(settings, "model_base")
        return ModelFiles(variable, base.name, {**base.options, "subfolder": "vae"})
    if mirror := mirror_of(settings, field):
        folder = fetch(*mirror, settings.work_dir, stopping.check)
        place = place_of(settings, field)
        pinned = f"{place.model}@{place.revision}" if place else ""
        return ModelFiles(variable, str(folder), {"local_files_only": True}, pinned)
    if Path(name).is_dir():
        return ModelFiles(variable, name, {"local_files_only": True})
    if name.startswith((".", "/", "~")):
        raise MissingInput(f"{variable}={name} is a folder that does not exist")
    revision = getattr(settings, f"{field}_revision")
    return ModelFiles(variable, name, {"revision": revision}, f"{name}@{revision}")


def mirror_of(
    settings: ModelSettings, field: str, opened: Callable[[str], ObjectStore] = open_store
) -> tuple[ObjectStore, str] | None:
    """The store and the path in it that hold the model: an s3:// mirror, or what `prefetch` has made of one on the hub."""
    name = str(getattr(settings, field))
    if name.startswith("s3://"):
        return opened(name), ""
    if (place := place_of(settings, field)) is None:
        return None
    store = opened(settings.artifacts_uri)
    return (store, place.path) if exists(store, place.path) else None


def place_of(settings: ModelSettings, field: str) -> Model | None:
    """Where the store has the mirror of a model, if it has one; None for models that are not pinned to a commit of the hub."""
    name, revision = str(getattr(settings, field)), str(getattr(settings, f"{field}_revision"))
    known = ON_HUB.fullmatch(name) and COMMIT.fullmatch(revision) and not Path(name).is_dir()
    return Model(name, revision) if known else None


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
