"""Settings of `sdlora prune`."""

from pydantic import Field

from service.settings.common import CommonSettings, prefixed


class PruneSettings(CommonSettings):
    """Deletes old checkpoints, and what writers that were killed left behind; tells first what it would delete."""

    model_config = prefixed("prune")

    dry_run: bool = Field(True, description="Only lists what would be deleted; `false` deletes it.")
    keep_last: int = Field(
        2,
        ge=2,
        description="The newest checkpoints that stay, besides the best and the last of a run, and all of a run whose "
        "LoRA is a champion. At least 2: should the newest be damaged, the one before it serves.",
    )
    keep_every: int = Field(
        0, ge=0, description="Checkpoints whose step is a multiple of this stay as well; 0 keeps none for that."
    )
    all_runs: bool = Field(
        False,
        description="Looks at every run of ARTIFACTS_URI, and for what killed writers left anywhere in it; without it, at "
        "RUN_ID alone.",
    )
