"""What may be a key: the same on S3 and on disk, and never outside of the store."""

from pathlib import PurePosixPath

from service.exits import BadConfiguration

TEMPORARY = ".sdlora-tmp-"
"""Start of the name of a file under construction. No key has it, and no listing shows it."""


def is_safe(path: str) -> bool:
    """Whether the path stays below the folder that it is appended to, and reads the same on S3 and on disk."""
    return (
        path not in ("", ".")
        and str(PurePosixPath(path)) == path
        and not path.startswith("/")
        and ".." not in path.split("/")
        and "\\" not in path
        and path.isprintable()
        and not any(part.startswith(TEMPORARY) for part in path.split("/"))
    )


def checked_key(key: str) -> str:
    """The key itself. One that could leave the store, or that only one kind of store can hold, is refused."""
    if not is_safe(key):
        raise BadConfiguration(f"{key!r} cannot be a key: it must be a relative path without '.', '..' or empty parts")
    return key
