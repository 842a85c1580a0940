"""What every job's settings share. One declaration of a field gives its variable, its flag, its help and its README row."""

import re
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, StringConstraints, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.logs import LogFormat
from service.redaction import USER_INFO

MINIATURE = "miniature"
GONE_FROM_THE_HUB = {"runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5"}


def split_list(value: Any) -> Any:
    """A list in one variable: a line each, or separated by commas when there is one line."""
    if not isinstance(value, str):
        return value
    parts = value.splitlines() if "\n" in value else value.split(",")
    return [part.strip() for part in parts if part.strip()]


StringList = Annotated[list[str], NoDecode, BeforeValidator(split_list)]
Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]


def prefixed(prefix: str) -> SettingsConfigDict:
    """Configuration of a job's class: its own fields are read from PREFIX_NAME and --prefix-name.

    The prefix stands for the bare names too: a launcher's RANK or a shell's SEED would else be taken for ours.
    """
    return SettingsConfigDict(alias_generator=lambda name: f"{prefix}_{name}", env_prefix=f"{prefix}_")


class CommonSettings(BaseSettings):
    """Shared by all jobs. A field of this class bears its own name as variable, without the prefix of a job."""

    model_config = SettingsConfigDict(
        cli_kebab_case=True,
        cli_shortcuts=None,
        extra="ignore",
        env_ignore_empty=True,
        validate_by_name=True,
        validate_by_alias=True,
        frozen=True,
    )

    artifacts_uri: str = Field(
        "./artifacts",
        validation_alias="artifacts_uri",
        description="Where every artifact is kept: a folder, or s3://bucket/prefix.",
    )
    run_id: Identifier = Field(
        "local", validation_alias="run_id", description="Name of the run; the jobs of one run share it."
    )
    work_dir: Path = Field(
        Path(".cache/sdlora"),
        validation_alias="work_dir",
        description="Scratch folder for downloads, caches and files under construction; may be lost at any time.",
    )
    log_format: LogFormat = Field(
        "auto",
        validation_alias="log_format",
        description="json: one JSON line an event; console: readable lines and progress bars; auto: by the terminal.",
    )
    outcome_file: Path | None = Field(
        None,
        validation_alias="outcome_file",
        description="File that tells as JSON how the job ended and what to do next; without it, the pod's "
        "/dev/termination-log where there is one.",
    )

    @model_validator(mode="after")
    def _credentials_stay_out(self) -> Self:
        """A setting ends up in manifests and logs. The message names the variable and not what it holds."""
        for field, value in self:
            if any(USER_INFO.search(text) for text in (value if isinstance(value, list) else [str(value)])):
                raise ValueError(
                    f"{variable_name(type(self), field)} holds a user name or a password; credentials of a store are "
                    "given as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or in a file"
                )
        return self

    def recipe(self) -> dict[str, Any]:
        """The settings that decide what a job makes: without the run's name, and where and how it works."""
        return {name: value for name, value in self.public().items() if name not in CommonSettings.model_fields}

    def public(self) -> dict[str, Any]:
        """The settings as plain values, fit for manifests and logs; a secret shows as stars."""
        return self.model_dump(mode="json")


class ModelSettings(CommonSettings):
    """Which models a job works with. `miniature` as base makes the whole family miniature unless told otherwise."""

    model_base: str = Field(
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        validation_alias="model_base",
        description="Base model: a hub id, a local folder, an s3:// mirror, or `miniature`.",
    )
    model_base_revision: str = Field(
        "451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
        validation_alias="model_base_revision",
        description="Commit of the base model on the hub.",
    )
    model_vae: str = Field(
        "stabilityai/sd-vae-ft-mse",
        validation_alias="model_vae",
        description="Autoencoder, named like the base model; `base` for the base model's own.",
    )
    model_vae_revision: str = Field(
        "31f26fdeee1355a5c34592e401dd41e45d25a493",
        validation_alias="model_vae_revision",
        description="Commit of the autoencoder on the hub.",
    )
    model_captioner: str = Field(
        "Salesforce/blip-image-captioning-base",
        validation_alias="model_captioner",
        description="Model that captions the images, a BLIP unless DATA_PREP_CAPTIONER says otherwise.",
    )
    model_captioner_revision: str = Field(
        "82a37760796d32b1411fe092ab5d4e227313294b",
        validation_alias="model_captioner_revision",
        description="Commit of the captioner on the hub.",
    )
    model_clip: str = Field(
        "openai/clip-vit-base-patch32",
        validation_alias="model_clip",
        description="CLIP model that judges prompt adherence, named like the base model.",
    )
    model_clip_revision: str = Field(
        "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268",
        validation_alias="model_clip_revision",
        description="Commit of the CLIP model on the hub.",
    )

    @model_validator(mode="before")
    @classmethod
    def _miniature_is_a_family(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("model_base") == MINIATURE:
            return {"model_vae": MINIATURE, "model_captioner": MINIATURE, "model_clip": MINIATURE, **values}
        return values

    @model_validator(mode="before")
    @classmethod
    def _follow_moved_models(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("model_base") in GONE_FROM_THE_HUB:
            return {**values, "model_base": GONE_FROM_THE_HUB[values["model_base"]]}
        return values


def variable_name(settings: type[CommonSettings], field: str) -> str:
    """The environment variable of a field, such as TRAIN_MAX_STEPS."""
    return str(settings.model_fields[field].validation_alias).upper()


def flag_name(settings: type[CommonSettings], field: str) -> str:
    """The command-line flag of a field, such as --train-max-steps."""
    return "--" + re.sub("_", "-", variable_name(settings, field).lower())
