"""JSON that is kept for others: a typed model with a schema version. Older versions are read, newer ones are refused."""

import json
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.exits import BadConfiguration, BadData


class WrittenByNewer(BadConfiguration):
    """What a newer version of this program wrote. It is not damaged, so nobody may delete it or pass over it."""


class Detail(BaseModel):
    """A JSON object inside of a document. What this version does not know, it passes over."""

    model_config = ConfigDict(frozen=True)


class Document(BaseModel):
    """A JSON object of which this version knows the schemas up to `SCHEMA`. What it does not know, it passes over."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    SCHEMA: ClassVar[int] = 1
    schema_version: int = Field(1, description="Version of this format.")

    def to_bytes(self) -> bytes:
        """Indented JSON with a newline at the end; figures that are not finite are NaN and Infinity."""
        return (json.dumps(self.model_dump(mode="json", by_alias=True), indent=2, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_bytes(cls, content: bytes | str, where: str) -> Self:
        """What `where` holds. Raises WrittenByNewer for a newer schema, BadData for what is no such document."""
        try:
            found = json.loads(content)
        except ValueError as error:
            raise BadData(f"{where} is no JSON: {error}") from error
        if isinstance(found, dict):
            check_schema(found.get("schema_version", found.get("schemaVersion", 1)), cls.SCHEMA, where)
        try:
            return cls.model_validate(found)
        except ValidationError as error:
            raise BadData(f"{where} is not valid: {first_complaint(error)}") from error


def check_schema(found: Any, known: int, where: str) -> None:
    """Raises WrittenByNewer when the schema version that was found is above the highest that is known."""
    if isinstance(found, int) and found > known:
        raise WrittenByNewer(
            f"{where} was written by a newer version of this program: its schema version is {found}, and this one knows "
            f"those up to {known}; run the newer version"
        )


def first_complaint(error: ValidationError) -> str:
    """The first thing that is wrong, in one line: where, and what."""
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']}"
