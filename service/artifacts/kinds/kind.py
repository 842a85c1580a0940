"""What all kinds of artifacts have in common: a name, a schema version, and what each of them says of itself."""

from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field

from service.artifacts.documents import check_schema
from service.artifacts.manifest import Manifest
from service.artifacts.publishing import read_manifest
from service.exits import BadConfiguration
from service.storage.interface import ObjectStore


class Statement(BaseModel):
    """What a published artifact says of itself in its manifest. A kind adds its own facts, each by its name."""

    model_config = ConfigDict(frozen=True)

    KIND: ClassVar[str]
    SCHEMA: ClassVar[int] = 1
    """Highest version of the kind's format that this program reads, and the one that it writes."""

    path: str = Field(description="Where the artifact is, below ARTIFACTS_URI.")
    version: str = Field(description="The hash of its content.")
    recipe: dict[str, Any] = Field(description="The settings that decided what it is: the manifest's `settings`.")

    @classmethod
    def read(cls, store: ObjectStore, path: str) -> Self:
        """The statement of the artifact at `path`.

        Raises NotFound without one, BadConfiguration for one of another kind, WrittenByNewer for a newer schema.
        """
        manifest = read_manifest(store, path)
        if manifest.kind != cls.KIND:
            raise BadConfiguration(
                f"{path} in {store.uri} holds the kind {manifest.kind!r}; {cls.KIND!r} is needed there"
            )
        check_schema(manifest.kind_schema, cls.SCHEMA, f"{store.uri}/{path}")
        return cls.of(path, manifest)

    @classmethod
    def of(cls, path: str, manifest: Manifest) -> Self:
        """The statement that is in a manifest."""
        return cls(path=path, version=manifest.version, recipe=manifest.settings)
