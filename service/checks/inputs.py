"""Whether a job can begin at all, asked before its libraries are loaded: that takes many seconds, and a name may be wrong.

Each function raises what the job itself would. It only looks: what is damaged, the job finds when it reads it whole.
"""

from importlib.util import find_spec
from pathlib import Path

from service.artifacts.history import champion_of
from service.artifacts.kinds import dataset, lora
from service.artifacts.publishing import exists
from service.artifacts.runs import Run
from service.exits import BadConfiguration, MissingInput
from service.settings.common import CommonSettings
from service.settings.evaluate import EvaluateSettings
from service.settings.infer import InferSettings
from service.settings.places import LORA_SUFFIX, OF_THE_REGISTRY
from service.settings.train import OPTIMIZERS, TrainSettings, check_batch_size, not_installed
from service.storage.opening import open_store


def train(settings: TrainSettings) -> None:
    """Batch and optimizer, as far as they are told without a device; the data set, unless the run is complete."""
    check_batch_size(settings, (settings.processes or 1) * settings.nodes)
    module = OPTIMIZERS.get(settings.optimizer)
    if module and find_spec(module) is None:
        raise BadConfiguration(not_installed("TRAIN_OPTIMIZER", settings.optimizer))
    run = Run(open_store(settings.artifacts_uri), settings.run_id)
    if not exists(run.store, run.lora_path):
        dataset.read(run.store, settings.dataset or run.dataset())


def infer(settings: InferSettings) -> None:
    """The LoRA."""
    _check_lora(settings, settings.lora)


def evaluate(settings: EvaluateSettings) -> None:
    """The LoRA."""
    _check_lora(settings, settings.lora)


def _check_lora(settings: CommonSettings, named: str | None) -> None:
    """Of a LoRA file from elsewhere only whether a local one is there; what it is, the job says."""
    store = open_store(settings.artifacts_uri)
    if named is None:
        lora.of_run(store, settings.run_id)
    elif named.startswith(OF_THE_REGISTRY):
        champion_of(store, named.removeprefix(OF_THE_REGISTRY))
    elif not named.endswith(LORA_SUFFIX):
        lora.read(store, named)
    elif not named.startswith("s3://") and not Path(named).is_file():
        raise MissingInput(f"the LoRA file {named} does not exist")
