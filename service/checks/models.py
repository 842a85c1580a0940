"""The models that the jobs will load: whether their files are within reach. None of them is loaded."""

from pathlib import Path

from pydantic import ValidationError

from service.artifacts.publishing import read_manifest
from service.artifacts.stored import key_of, name_of
from service.checks.result import CheckResult, CheckStatus, ok, warning
from service.checks.stores import open_impatiently
from service.diffusion.families import family_name
from service.diffusion.hub import ANSWER_SECONDS, hub_error
from service.diffusion.models import ModelFiles, locate_model, mirror_of
from service.exits import BadData, MissingInput, StorageUnreachable
from service.settings.catalogue import all_settings
from service.settings.models import MINIATURE, OF_BASE, BaseModelSettings, ModelSettings
from service.storage.interface import ObjectStore

# What every model of its kind has at its root.
CARDS = {
    "model_base": "model_index.json",
    "model_vae": "config.json",
    "model_captioner": "config.json",
    "model_clip": "config.json",
}
WEIGHTS = (".safetensors", ".bin")


def models_of(job: str) -> tuple[str, ...]:
    """The fields of the models that a job loads by itself; all that it may load where its settings are refused."""
    settings = all_settings()[job]
    if not issubclass(settings, ModelSettings):
        return ()
    try:
        return settings().models()
    except ValidationError:
        return settings.known_models()


def check_model(settings: ModelSettings, field: str) -> CheckResult:
    """Where the model that the setting `field` names will come from. Raises what the job would end with, or sooner."""
    found = _check_files(settings, field)
    # A warning is of a hub that does not answer, which need not be waited for once more.
    if field == "model_base" and isinstance(settings, BaseModelSettings) and found.status == CheckStatus.OK:
        family_name(settings)
    return found


def _check_files(settings: ModelSettings, field: str) -> CheckResult:
    name, variable = str(getattr(settings, field)), field.upper()
    check = f"model {field.removeprefix('model_')}"
    if field == "model_vae" and name == OF_BASE:
        return ok(check, "the base model's own")
    if mirror := mirror_of(settings, field, open_impatiently):
        return _check_mirror(check, variable, *mirror, CARDS[field])
    files = locate_model(settings, field)
    if "revision" in files.options:
        return _check_hub(check, files, CARDS[field])
    _require_model({str(path.relative_to(files.name)) for path in Path(files.name).rglob("*")}, files, CARDS[field])
    return ok(check, "the miniature" if name == MINIATURE else f"the folder {files.name}")


def _check_mirror(check: str, variable: str, store: ObjectStore, path: str, card: str) -> CheckResult:
    """The manifest and the sizes of the files; their contents are verified when they are fetched."""
    manifest, uri = read_manifest(store, path), name_of(store, path)
    _require_model({file.path for file in manifest.files}, ModelFiles(variable, uri, {}), card)
    sizes = {entry.key: entry.size for entry in store.list(key_of(path, ""))}
    wrong = [file.path for file in manifest.files if sizes.get(key_of(path, manifest.name_of(file))) != file.size]
    if wrong:
        raise BadData(
            f"{variable}={uri} is damaged: {len(wrong)} of {len(manifest.files)} files are missing or cut off, such as "
            f"{wrong[0]}; mirror the model again"
        )
    return ok(check, f"the mirror {uri}, {sum(sizes.values()) / 1e9:.2g} GB")


def _require_model(names: set[str], files: ModelFiles, card: str) -> None:
    if card not in names or not any(name.endswith(WEIGHTS) for name in names):
        raise BadData(
            f"{files.variable}={files.name} holds no {card} or no weights; name the folder that the model was saved to"
        )


def _check_hub(check: str, files: ModelFiles, card: str) -> CheckResult:
    """Online the hub is asked for the revision, offline the cache must have it."""
    from huggingface_hub import HfApi, constants  # takes a moment to import, and most set-ups never ask the hub

    revision = str(files.options["revision"])
    where = f"{files.variable}={files.name} at revision {revision}"
    if constants.HF_HUB_OFFLINE:
        if _cached(files.name, revision, card):
            return ok(check, f"{files.name} in the hub's cache {constants.HF_HUB_CACHE}")
        raise MissingInput(
            f"{where} is not in the cache {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE is set; use a folder, an s3:// "
            "mirror or `miniature`, or let the job reach the hub"
        )
    try:
        HfApi().model_info(files.name, revision=revision, timeout=ANSWER_SECONDS)
    except Exception as error:
        meaning = hub_error(error, where)
        if meaning is None:
            raise
        if isinstance(meaning, StorageUnreachable) and _cached(files.name, revision, card):
            advice = "set HF_HUB_OFFLINE=1 to ask the cache alone"
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            return warning(check, f"{files.name} is in the cache, and the hub does not answer: {reason}", advice)
        raise meaning from error
    return ok(check, f"{files.name} on the hub at revision {revision[:12]}")


def _cached(name: str, revision: str, card: str) -> bool:
    """Whether the hub's cache has the card and some weights of the model."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, card, revision=revision)
    return isinstance(found, str) and any(
        path.suffix in WEIGHTS and path.is_file() for path in Path(found).parent.rglob("*")
    )
