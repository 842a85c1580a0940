"""Rows of a cache: tensors by key, in one Arrow file. They never change, and every run may use them.

The file is an Arrow stream with a row for each key: `key`, and for each tensor `NAME`, its values, and `NAME.shape`. In
schema 1 the tensors of a row had one shape, in the column `shape` behind `key`.
"""

from collections.abc import Sequence
from pathlib import Path

from service.artifacts.kinds.kind import Statement
from service.artifacts.publishing import Artifact, publish_version
from service.exits import BadData
from service.storage.interface import ObjectStore

FILE = "rows.arrow"


FILES = {
    FILE: "An Arrow stream: `key`, then shape and values of each tensor of the row; `datasets.Dataset.from_file` reads it.",
}


class Rows(Statement):
    """Some published rows."""

    KIND = "cache"
    SCHEMA = 2

    @property
    def keys(self) -> frozenset[str]:
        """The keys of the rows. Raises BadData where the manifest does not list them."""
        found = self.recipe.get("keys")
        if not isinstance(found, list):
            raise BadData(f"the rows {self.path} do not list their keys")
        return frozenset(map(str, found))


def write(store: ObjectStore, folder: Path, *, prefix: str, keys: Sequence[str]) -> Artifact:
    """Publishes the rows in `folder` below a cache's `prefix`. `keys`: those of the rows, in their order."""
    return publish_version(
        store, folder, kind=Rows.KIND, kind_schema=Rows.SCHEMA, prefix=prefix, settings={"keys": list(keys)}
    )


def read(store: ObjectStore, path: str) -> Rows:
    """What the rows at `path` say of themselves."""
    return Rows.read(store, path)
