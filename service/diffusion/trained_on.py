"""Whether a LoRA is drawn with the model that it was trained on."""

import structlog

from service.artifacts.kinds.lora import Lora
from service.exits import BadConfiguration, BadData
from service.settings.models import MINIATURE, BaseModelSettings

log = structlog.get_logger(__name__)


def check_trained_on(lora: Lora, settings: BaseModelSettings) -> None:
    """Warns of a LoRA that was trained on another base model, which may be meant. A LoRA from elsewhere does not tell.

    Raises BadConfiguration for one of another edition of the miniature, whose words and latents are others.
    """
    there = (lora.recipe.get("model_base"), lora.recipe.get("model_base_revision"))
    now = (settings.model_base, settings.model_base_revision)
    if there[0] is None or there == now:
        return
    if there[0] == now[0] == MINIATURE:
        raise BadConfiguration(
            f"{lora.path} was trained on another edition of the miniature (MODEL_BASE_REVISION {there[1]} there, {now[1]} "
            "now); train it anew under another RUN_ID"
        )
    log.warning("the LoRA was trained on another base model", lora=lora.path, trained_on="@".join(map(str, there)))


def check_comparable(champion: Lora, version: str, settings: BaseModelSettings) -> None:
    """Whether a LoRA can be compared with the champion at its path. version: that by which the registry knows it.

    Raises BadData for another LoRA than that, and BadConfiguration for one of another base model or edition than draws now:
    their pictures would tell the models apart, and not the LoRAs.
    """
    if champion.version != version:
        raise BadData(
            f"{champion.path} holds version {champion.version} now, and the registry means {version} by its champion; restore "
            "it, or roll back to another one"
        )
    there = (champion.recipe.get("model_base"), champion.recipe.get("model_base_revision"))
    now = (settings.model_base, settings.model_base_revision)
    if there[0] is not None and there != now:
        trained, drawing = ("@".join(map(str, base)) for base in (there, now))
        raise BadConfiguration(
            f"the champion {champion.path} was trained on {trained}, and MODEL_BASE is {drawing}; name another PROMOTE_MODEL "
            "for LoRAs of this base model"
        )
