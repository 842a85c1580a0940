"""Which family a base model is of. A new family has its line here, and its folder beside this file.

Nothing heavy is imported before a model is loaded: for the length of captions there is no need of torch.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from service.artifacts.stored import key_of
from service.diffusion import sd15
from service.diffusion.models import loading, locate_model, mirror_of
from service.exits import BadConfiguration, BadData
from service.settings.models import BaseModelSettings
from service.storage.interface import NotFound

if TYPE_CHECKING:
    from service.diffusion.family import Family

INDEX_NAME = "model_index.json"
FamilyName = Literal["sd15"]
PIPELINES: dict[FamilyName, tuple[str, ...]] = {"sd15": sd15.PIPELINES}
"""The classes of diffusers that a model's index names, by family."""


def family_of(settings: BaseModelSettings) -> "Family":
    """The family of MODEL_BASE. Raises BadConfiguration for a model of a kind that there is no family for."""
    match family_name(settings):
        case "sd15":
            from service.diffusion.sd15.family import SD15Family

            return SD15Family()


def token_counter(settings: BaseModelSettings) -> tuple[int, Callable[[str], int]]:
    """How many tokens of a caption MODEL_BASE reads, and what counts those of a text."""
    match family_name(settings):
        case "sd15":
            from service.diffusion.sd15.tokenizer import load_token_counter

            return load_token_counter(settings)


def family_name(settings: BaseModelSettings) -> FamilyName:
    """By the model's own index; one without it is taken for a Stable Diffusion 1.x, and fails to load where it is none.

    Raises BadConfiguration for a model of a kind that there is no family for, BadData for an index that is none.
    """
    text = _read_index(settings)
    try:
        found = dict(json.loads(text)).get("_class_name") if text else sd15.PIPELINES[0]
    except (ValueError, TypeError) as error:
        raise BadData(f"MODEL_BASE={settings.model_base} is damaged: its {INDEX_NAME} holds no JSON object") from error
    for name, pipelines in PIPELINES.items():
        if found in pipelines:
            return name
    known = ", ".join(pipeline for pipelines in PIPELINES.values() for pipeline in pipelines)
    raise BadConfiguration(f"MODEL_BASE={settings.model_base} is a {found}; a LoRA can be trained for {known}")


def _read_index(settings: BaseModelSettings) -> str | None:
    """The text of MODEL_BASE's index, without fetching the model; None where there is none."""
    if mirror := mirror_of(settings, "model_base"):
        store, path = mirror
        try:
            return store.get(key_of(path, INDEX_NAME)).decode()
        except NotFound:
            return None
    files = locate_model(settings, "model_base")
    file = Path(files.name) / INDEX_NAME
    if "revision" in files.options:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        with loading(files):
            try:
                file = Path(hf_hub_download(files.name, INDEX_NAME, **files.options))
            except EntryNotFoundError:
                return None
    return file.read_text() if file.exists() else None
