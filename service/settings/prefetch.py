"""Settings of `sdlora prefetch`."""

from service.settings.catalogue import CHAIN
from service.settings.common import prefixed
from service.settings.declaring import only_how
from service.settings.doctor import ChainJobs
from service.settings.models import FamilySettings


class PrefetchSettings(FamilySettings):
    """Mirrors models of the hub into the store."""

    model_config = prefixed("prefetch")

    jobs: ChainJobs = only_how(
        list(CHAIN), min_length=1, description="The jobs that are to run: the models that they load are mirrored."
    )
