"""What operating systems and tools leave in folders, which nobody means when they say "my images"."""

from pathlib import PurePosixPath

FILES = {
    "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "picasa.ini", "zbthumbnail.info", "albumart.pamp",
    "icon\r", "folder.htt",
}  # fmt: skip
FOLDERS = {
    "__macosx", "@eadir", "#recycle", "@recycle", "@recently-snapshot", "#snapshot", "$recycle.bin", "recycler",
    "system volume information", "lost+found", "network trash folder", "temporary items", "thumbnails cache",
}  # fmt: skip
ENDINGS = (".part", ".partial", ".crdownload", ".download", ".tmp", "~", "_$folder$", "@synoeastream", "@synoresource")
BEGINNINGS = (".", "~$")
"""Hidden files and folders, `._` resource forks and trashes among them, and locks of office programs."""


def is_leftover(name: str) -> bool:
    """Whether a file, by its path inside the source, is none of the user's own: hidden, a cache, a resource fork, a rest.

    An archive's `__MACOSX/`, a network drive's `@eaDir/` and `.thumbnails/` hold small copies of every image.
    """
    *folders, file = PurePosixPath(name.casefold()).parts or ("",)
    return (
        file in FILES
        or file.endswith(ENDINGS)
        or any(part.startswith(BEGINNINGS) for part in (*folders, file))
        or any(folder in FOLDERS for folder in folders)
    )
