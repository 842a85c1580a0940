"""Settings of `sdlora retrain`."""

from service.settings.common import prefixed
from service.settings.declaring import only_how
from service.settings.promote import ChangeSettings


class RetrainSettings(ChangeSettings):
    """Runs data-prep, train, evaluate and promote for a model, once; the variables of those jobs are read as well."""

    model_config = prefixed("retrain")

    fail_unless_promoted: bool = only_how(
        True,
        description="Exit 80 when the new LoRA is not promoted, so that a pipeline ends red; `false`: exit 0, and the outcome "
        "says it.",
    )
    price_per_hour: float | None = only_how(
        None,
        gt=0,
        validation_alias="price_per_hour",
        description="What an hour of this machine costs, in any currency; the report tells the price then.",
    )
