"""Settings of the jobs that look after the registry: `promote`, `rollback`, `retire` and `champion`."""

import os
import socket
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from typing import Annotated

from pydantic import BeforeValidator

from service.exits import BadConfiguration
from service.settings.base import Text
from service.settings.common import CommonSettings, Identifier, StringList, prefixed
from service.settings.declaring import only_how
from service.settings.places import ArtifactPath
from service.settings.trace import LOOK_ALIKES, LookAlikes

MODEL = "Name of the model in the registry, of which one LoRA at a time is the champion."


class RegistrySettings(CommonSettings):
    """What they have in common: PROMOTE_MODEL says which model it is about, in `evaluate` too."""

    model: Identifier | None = only_how(None, validation_alias="promote_model", description=MODEL)

    def named_model(self) -> str:
        """The model's name. Raises BadConfiguration where a job needs one and has none."""
        if self.model is None:
            raise BadConfiguration("PROMOTE_MODEL is not set: name the model in the registry, such as pixel-art")
        return self.model


class ChangeSettings(RegistrySettings):
    """Of those that write an entry: who does it, and in which image."""

    by: Text = only_how(
        "",
        validation_alias="promote_by",
        description="Who makes the change; without it the CI run by its address, else the user, else the machine.",
    )
    image: Text = only_how(
        "", validation_alias="promote_image", description="The container image with its digest, for the entry."
    )

    def who(self, environment: Mapping[str, str] = os.environ) -> str:
        """Who makes the change, as far as it is known."""
        return self.by or ci_run(environment) or environment.get("USER", "") or socket.gethostname()


class PromoteSettings(ChangeSettings):
    """Makes the LoRA of an evaluation that says `promote` the champion of a model."""

    model_config = prefixed("promote")

    evaluation: ArtifactPath | None = only_how(
        None,
        description="Path of the evaluation below ARTIFACTS_URI; without it, the newest one of this run.",
    )
    force: Text = only_how(
        "",
        description="A reason to promote although the evaluation does not say so, is of an older champion, or of a LoRA that "
        "was trained on an image which is withdrawn by now; it is recorded, with what it overrules.",
    )
    reason: Text = only_how("", description="Why, for people; without it, the reason that the evaluation gives.")


class RollbackSettings(ChangeSettings):
    """Makes the champion before the one of now the champion again, or an earlier one."""

    model_config = prefixed("rollback")

    to: int | None = only_how(
        None,
        gt=0,
        description="Number of the entry whose champion it is to be; without it, the one who reigned before the one of now.",
    )
    reason: Text = only_how("", description="Why, for people.")


class RetireSettings(ChangeSettings):
    """Withdraws LoRAs, or all that descend from an image, for ever; the next best takes the place of one that reigns."""

    model_config = prefixed("retire")

    loras: StringList = only_how(
        [],
        description="Paths of the LoRAs below ARTIFACTS_URI. They are withdrawn from all models that ever had one of them, and "
        "from PROMOTE_MODEL where it is set.",
    )
    withdrawn_image: str | None = only_how(
        None,
        validation_alias="retire_image",
        description="An image to withdraw: its URL or that of its page, a sha256 of its file or pixels, or a file, local or "
        "s3://. A record in the store keeps it out of every data set from now on, and all LoRAs that descend from it are "
        "withdrawn like those in RETIRE_LORAS.",
    )
    look_alikes: LookAlikes = only_how("include", description=LOOK_ALIKES)
    reason: Text = only_how("", description="Why, for people; must be said.")


def _to_its_end(value: object) -> object:
    """A date counts to its end, UTC; a time without a zone is UTC."""
    if not isinstance(value, str):
        return value
    try:
        return datetime.combine(date.fromisoformat(value), time.max, UTC)
    except ValueError:
        moment = datetime.fromisoformat(value)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class ChampionSettings(RegistrySettings):
    """Tells who is the champion of each model; of PROMOTE_MODEL the whole history, an entry, or who it was on a date."""

    model_config = prefixed("champion")

    number: int | None = only_how(None, gt=0, description="Shows the entry with this number.")
    on: Annotated[datetime, BeforeValidator(_to_its_end)] | None = only_how(
        None, description="Shows who was champion then: a date, to its end in UTC, or a time such as 2026-03-01T12:00Z."
    )


def ci_run(environment: Mapping[str, str]) -> str:
    """The address of the CI run that this is part of, of GitHub, GitLab or Jenkins; empty outside of one."""
    if run := environment.get("GITHUB_RUN_ID"):
        server = environment.get("GITHUB_SERVER_URL", "https://github.com")
        return f"{server}/{environment.get('GITHUB_REPOSITORY', '')}/actions/runs/{run}"
    return environment.get("CI_JOB_URL") or environment.get("BUILD_URL") or ""
