"""What every job's settings share. One declaration of a field gives its variable, its flag, its help and its README row."""

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, StringConstraints
from pydantic_settings import NoDecode, SettingsConfigDict

from service.logs import LogFormat, LogLevel
from service.settings.base import FREE_TEXT, variable_name
from service.settings.declaring import only_how
from service.settings.delivery import cleaned
from service.settings.notify import NotifySettings
from service.settings.places import NAME, LocalPath, Place
from service.settings.s3 import S3Settings


def split_list(value: Any) -> Any:
    """A list in one variable: a line each, or separated by commas when there is one line."""
    if not isinstance(value, str):
        return value
    parts = value.splitlines() if "\n" in value else value.split(",")
    return [meant for part in parts if (meant := cleaned(part))]


def lower_case(value: Any) -> Any:
    """A word as it is written here: other programs that read the same variable may want it in capitals."""
    return value.lower() if isinstance(value, str) else value


EXPORTED = {*S3Settings.model_fields, *NotifySettings.model_fields, "outcome_file"}
"""Read anew by whoever opens a bucket, in every process; and when the job is over, or has come to grief before."""

StringList = Annotated[list[str], NoDecode, BeforeValidator(split_list)]
TextList = Annotated[StringList, FREE_TEXT]
Identifier = Annotated[str, StringConstraints(pattern=f"^{NAME}$")]


def prefixed(prefix: str, *, short: dict[str, str | list[str]] | None = None) -> SettingsConfigDict:
    """Configuration of a job's class: its own fields are read from PREFIX_NAME and --prefix-name.

    short: further flags by those that they stand for, without their dashes.

    The prefix stands for the bare names too: a launcher's RANK or a shell's SEED would else be taken for ours.
    """
    return SettingsConfigDict(
        alias_generator=lambda name: f"{prefix}_{name}", env_prefix=f"{prefix}_", cli_shortcuts=short
    )


class CommonSettings(NotifySettings, S3Settings):
    """Shared by all jobs. A field of this class bears its own name as variable, without the prefix of a job."""

    artifacts_uri: Place = only_how(
        "./artifacts",
        validation_alias="artifacts_uri",
        description="Where every artifact is kept: a folder, or s3://bucket/prefix.",
    )
    run_id: Identifier = only_how(
        "local", validation_alias="run_id", description="Name of the run; the jobs of one run share it."
    )
    work_dir: LocalPath = only_how(
        Path(".cache/sdlora"),
        validation_alias="work_dir",
        description="Scratch folder for downloads, caches and files under construction; may be lost at any time.",
    )
    log_format: LogFormat = only_how(
        "auto",
        validation_alias="log_format",
        description="json: one JSON line an event; console: readable lines and progress bars; auto: by the terminal.",
    )
    log_level: Annotated[LogLevel, BeforeValidator(lower_case)] = only_how(
        "info",
        validation_alias="log_level",
        description="Events from this level on. debug: each point of the curves, each image that is left out, and the progress "
        "of loops that are over in a moment as well.",
    )
    outcome_file: LocalPath | None = only_how(
        None,
        validation_alias="outcome_file",
        description="File that says as JSON how the job ended and what to do next; without it, the pod's "
        "/dev/termination-log where there is one.",
    )

    @classmethod
    def own_prefix(cls) -> str:
        """What the variables of the job's own fields begin with, such as TRAIN."""
        return str(cls.model_config.get("env_prefix", "")).rstrip("_").upper()

    def public(self) -> dict[str, Any]:
        """The settings as plain values, fit for manifests and logs; a secret shows as stars."""
        return self.model_dump(mode="json")


def export(settings: CommonSettings) -> None:
    """Puts into the environment what is read there by others than the job, as a flag counts as much as the variable."""
    for field in settings.model_fields_set & EXPORTED:
        os.environ[variable_name(type(settings), field)] = str(getattr(settings, field))
