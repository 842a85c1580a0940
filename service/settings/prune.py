"""Settings of `sdlora prune`."""

from service.settings.common import CommonSettings, prefixed
from service.settings.declaring import only_how


class PruneSettings(CommonSettings):
    """Deletes old checkpoints, and what writers that were killed left behind; lists first what it would delete."""

    model_config = prefixed("prune")

    dry_run: bool = only_how(True, description="Only lists what would be deleted; `false` deletes it.")
    keep_last: int = only_how(
        2,
        ge=2,
        description="The newest checkpoints that stay, besides the best and the last of a run, and all of a run whose "
        "LoRA is a champion. At least 2: should the newest be damaged, the one before it serves.",
    )
    keep_every: int = only_how(
        0, ge=0, description="Checkpoints whose step is a multiple of this stay as well; 0 keeps none for that."
    )
    all_runs: bool = only_how(
        False,
        description="Looks at every run of ARTIFACTS_URI, and for what killed writers left anywhere in it; without it, at "
        "RUN_ID alone.",
    )
