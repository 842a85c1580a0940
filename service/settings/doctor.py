"""Settings of `sdlora doctor`."""

from typing import Annotated, Literal

from pydantic import BeforeValidator
from pydantic_settings import NoDecode

from service.settings.common import prefixed, split_list
from service.settings.declaring import only_how
from service.settings.models import FamilySettings

Stage = Literal["data-prep", "train", "infer", "evaluate"]


class DoctorSettings(FamilySettings):
    """Says what would fail: settings, storage, models, GPU, disk."""

    model_config = prefixed("doctor")

    jobs: Annotated[list[Stage], NoDecode, BeforeValidator(split_list)] = only_how(
        ["data-prep", "train", "infer", "evaluate"],
        min_length=1,
        description="The jobs that are to run here: their settings are checked, and that the models they load are there.",
    )
    require_gpu: bool = only_how(False, description="Makes a missing GPU a failure; without it, it is a warning.")
    min_disk_gib: float = only_how(5.0, gt=0, description="GiB that WORK_DIR must have free.")
