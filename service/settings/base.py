"""What all classes of settings have in common: how values are read, and what each field has to say of itself."""

from typing import Annotated, Any, LiteralString, get_args, get_origin

from annotated_types import MinLen
from pydantic import ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, CliPositionalArg, SettingsConfigDict

from service.redaction import USER_INFO
from service.settings.declaring import role_of
from service.settings.delivery import check_characters, cleaned

LARGEST = 2**63 - 1
"""Of whole numbers: the largest that the libraries take, for seeds too."""

MOST_STEPS = 1000
"""Of denoising: as many as the noise has."""

MOST_PIXELS = 16_384
"""Of a side: more than any model draws, and what a library still answers with a word about memory."""

YEAR = 365 * 24 * 3600
"""In seconds: what no timeout needs, and all libraries take."""

CREDENTIALS_INSIDE: LiteralString = "credentials_inside"
"""Type of the error of a value that must not be repeated."""

POSITIONAL = get_args(CliPositionalArg[str])[1]
"""By which a field says that it is an argument."""

FREE_TEXT = "free text"
Text = Annotated[str, FREE_TEXT]
"""Words for people or models: any character is meant, and none at all may be."""


class Settings(BaseSettings):
    """Read from the environment and from flags, the same way for all.

    A value is what stands between the quotes, blanks and line ends with which env files, ConfigMaps and Secrets deliver it.
    One that is empty then stands for the default, but where empty text can be meant.
    """

    model_config = SettingsConfigDict(
        cli_kebab_case=True,
        cli_shortcuts=None,
        extra="ignore",
        validate_by_name=True,
        validate_by_alias=True,
        allow_inf_nan=False,
        frozen=True,
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """Whoever adds a setting has to say what it does: left to a list elsewhere, it is forgotten there."""
        unsaid = [name for name, field in cls.model_fields.items() if role_of(field) is None]
        if unsaid:
            raise TypeError(f"{cls.__name__}: {', '.join(unsaid)} must be declared by `decides` or `only_how`")

    @classmethod
    def prepared(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The values with those added that follow from others; for subclasses, which call that of their base too."""
        return values

    @model_validator(mode="before")
    @classmethod
    def _as_meant(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        meant = {key: cleaned(value) if isinstance(value, str) else value for key, value in values.items()}
        texts = {name: field for name, field in cls.model_fields.items() if _may_be_empty(field)}
        kept = texts.keys() | {str(field.validation_alias) for field in texts.values()}
        return cls.prepared({key: value for key, value in meant.items() if value != "" or key in kept})

    @field_validator("*", mode="before")
    @classmethod
    def _holds_nothing_strange(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[str(info.field_name)]
        if any(USER_INFO.search(str(text)) for text in (value if isinstance(value, list) else [value])):
            # A setting ends up in manifests and logs; so the message must not hold the value either.
            raise PydanticCustomError(
                CREDENTIALS_INSIDE,
                "holds a user name or a password; credentials of a store are given as AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or in a file",
            )
        if isinstance(value, str) and get_origin(field.annotation) is not list and FREE_TEXT not in field.metadata:
            check_characters(value)
        return value

    @field_validator("*", mode="after")
    @classmethod
    def _fits(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, list) and FREE_TEXT not in cls.model_fields[str(info.field_name)].metadata:
            for item in value:
                check_characters(str(item))
        if isinstance(value, int) and value > LARGEST:
            raise ValueError(f"must be at most {LARGEST}")
        return value


def _may_be_empty(field: FieldInfo) -> bool:
    bounded = any(isinstance(entry, MinLen) for entry in field.metadata)
    return field.annotation is str and FREE_TEXT in field.metadata and not bounded


def check_seeds(prefix: str, seed: int, variations: int) -> None:
    """Raises ValueError when the seed of the last variation is more than the libraries take."""
    if seed + variations - 1 > LARGEST:
        raise ValueError(
            f"{prefix}_SEED={seed} with {prefix}_VARIATIONS={variations}: the last variation's seed must be at most {LARGEST}"
        )


def variable_name(settings: type[BaseSettings], field: str) -> str:
    """The environment variable of a field, such as TRAIN_MAX_STEPS."""
    return str(settings.model_fields[field].validation_alias).upper()


def is_positional(field: FieldInfo) -> bool:
    """Whether the command line gives it as a bare argument, such as the data sets in `sdlora diff ONE OTHER`."""
    return POSITIONAL in field.metadata


def flag_name(settings: type[BaseSettings], field: str) -> str:
    """The command-line flag of a field, such as --train-max-steps."""
    return "--" + variable_name(settings, field).lower().replace("_", "-")
