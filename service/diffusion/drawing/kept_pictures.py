"""Pictures of a drawing that is under way, kept in the store: who is stopped or killed does not draw them again."""

from collections.abc import Sequence
from io import BytesIO

import structlog
from PIL import Image

from service import stopping
from service.storage.interface import NotFound, ObjectStore
from service.storage.parallel import for_each

log = structlog.get_logger(__name__)


class KeptPictures:
    """Numbered pictures below `prefix`, one PNG each. The prefix stands for all that decides how they look."""

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self._store = store
        self._prefix = prefix
        self._there = {entry.key for entry in store.list(f"{prefix}/")}

    def __len__(self) -> int:
        return len(self._there)

    def pictures(self, numbers: Sequence[int]) -> list[Image.Image] | None:
        """The pictures of these numbers, pixel for pixel as they were drawn; None unless all of them are there and whole."""
        if not {self._key(number) for number in numbers} <= self._there:
            return None
        found: list[Image.Image] = []
        for number in numbers:
            try:
                picture = Image.open(BytesIO(self._store.get(self._key(number))))
                picture.load()
            except (NotFound, OSError, SyntaxError, ValueError) as error:
                log.warning("kept picture is drawn again", key=self._key(number), error=str(error))
                return None
            found.append(picture)
        return found

    def keep(self, numbers: Sequence[int], pictures: Sequence[Image.Image]) -> None:
        """Stores the pictures under these numbers, without loss."""
        for number, picture in zip(numbers, pictures, strict=True):
            buffer = BytesIO()
            picture.save(buffer, format="PNG", compress_level=1)
            self._store.put(self._key(number), buffer.getvalue())

    def _key(self, number: int) -> str:
        return f"{self._prefix}/{number:05d}.png"


def clear(store: ObjectStore, prefix: str) -> None:
    """Removes the pictures below `prefix`, once what was made of them is published."""

    def delete(key: str) -> None:
        stopping.check()  # the next start finds the job done, and clears the rest
        store.delete(key)

    for_each(delete, [entry.key for entry in store.list(f"{prefix}/")], "clearing pictures")
