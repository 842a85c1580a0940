"""Settings of `sdlora doctor`."""

from typing import Annotated

from pydantic import AfterValidator

from service.settings.catalogue import CHAIN
from service.settings.common import StringList, prefixed
from service.settings.declaring import only_how
from service.settings.models import FamilySettings

RETRAIN = ("data-prep", "train", "evaluate", "retrain")
"""`retrain` and the jobs that it runs."""


def _known(jobs: list[str]) -> list[str]:
    known = [*CHAIN, RETRAIN[-1]]
    if unknown := [job for job in jobs if job not in known]:
        raise ValueError(f"{', '.join(unknown)}: there are {', '.join(known)}")
    return list(dict.fromkeys(part for job in jobs for part in (RETRAIN if job == RETRAIN[-1] else (job,))))


ChainJobs = Annotated[StringList, AfterValidator(_known)]


class DoctorSettings(FamilySettings):
    """Says what would fail: settings, storage, models, GPU, disk."""

    model_config = prefixed("doctor")

    jobs: ChainJobs = only_how(
        list(CHAIN),
        min_length=1,
        description="The jobs that are to run here: their settings are checked, and that the models they load are there. "
        "`retrain` stands for those that it runs, and asks for the registry of PROMOTE_MODEL too.",
    )
    require_gpu: bool = only_how(False, description="Makes a missing GPU a failure; without it, it is a warning.")
    min_disk_gib: float = only_how(5.0, gt=0, description="GiB that WORK_DIR must have free.")
