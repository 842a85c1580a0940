"""Finding a file by a name that another system, or a person, wrote down."""

import posixpath
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable


def folded(name: str) -> str:
    """The same for names that a person would call the same: composed as macOS does or not, in whatever case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def without_suffix(name: str) -> str:
    return posixpath.splitext(name)[0]


class Names:
    """Files by their names, or by what `of` makes of them, such as the name without its suffix."""

    def __init__(self, names: Iterable[str], of: Callable[[str], str] = str) -> None:
        self._exact: defaultdict[str, list[str]] = defaultdict(list)
        self._folded: defaultdict[str, list[str]] = defaultdict(list)
        for name in names:
            self._exact[of(name)].append(name)
            self._folded[folded(of(name))].append(name)

    def find(self, name: str) -> list[str]:
        """The files of that very name; if there are none, those whose names differ in case or composition only."""
        return self._exact.get(name) or self._folded.get(folded(name), [])

    def one(self, name: str, folder: str) -> str | None:
        """The one file that `name` means, as it is written in a table of `folder`: with either slash."""
        for spelling in (name, name.replace("\\", "/")):
            found = self.find(posixpath.normpath(posixpath.join(folder, spelling)))
            if found:
                return found[0] if len(found) == 1 else None
        return None
