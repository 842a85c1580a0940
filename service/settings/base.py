"""What all classes of settings have in common: how values are read, and what each field has to say of itself."""

from collections.abc import Iterable
from typing import Annotated, Any, Self

from pydantic import ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.settings.declaring import role_of
from service.settings.delivery import cleaned, named, strange_character

LARGEST = 2**63 - 1
"""Of whole numbers: the largest that the libraries take, for seeds too."""

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
        texts = set(cls._keys_of(name for name, field in cls.model_fields.items() if FREE_TEXT in field.metadata))
        return cls.prepared({key: value for key, value in meant.items() if value != "" or key in texts})

    @classmethod
    def _keys_of(cls, fields: Iterable[str]) -> list[str]:
        """The names under which values of these fields come in."""
        return [key for name in fields for key in (name, str(cls.model_fields[name].validation_alias))]

    @field_validator("*", mode="before")
    @classmethod
    def _holds_nothing_strange(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[str(info.field_name)]
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and FREE_TEXT not in field.metadata and (strange := strange_character(text)):
                raise ValueError(f"it holds {named(strange)}, which cannot be part of it")
        return value

    @model_validator(mode="after")
    def _numbers_fit(self) -> Self:
        for name, value in self:
            if isinstance(value, int) and value > LARGEST:
                raise ValueError(f"{variable_name(type(self), name)}={value}: must be at most {LARGEST}")
        return self


def variable_name(settings: type[BaseSettings], field: str) -> str:
    """The environment variable of a field, such as TRAIN_MAX_STEPS."""
    return str(settings.model_fields[field].validation_alias).upper()


def flag_name(settings: type[BaseSettings], field: str) -> str:
    """The command-line flag of a field, such as --train-max-steps."""
    return "--" + variable_name(settings, field).lower().replace("_", "-")
