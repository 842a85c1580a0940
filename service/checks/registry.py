"""The registry of the model that is to be retrained."""

from service.artifacts.history import History
from service.checks.result import CheckResult, ok
from service.settings.promote import RegistrySettings
from service.storage.opening import open_store


def check_registry(artifacts_uri: str) -> CheckResult:
    """That PROMOTE_MODEL names a model, and its history is whole: found out after the training, it would cost the GPU hours."""
    model = RegistrySettings().named_model()
    champion = History.read(open_store(artifacts_uri), model).champion
    return ok("registry", f"{model} has {champion.lora if champion else 'no LoRA'} as its champion")
