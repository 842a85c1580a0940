"""What is none of the user's images."""

import pytest

from service.dataset.sources.leftovers import is_leftover


@pytest.mark.parametrize(
    "name",
    [
        ".DS_Store", "._a.png", "sub/._a.png", ".hidden.png", ".thumbnails/normal/a.png", "__MACOSX/sub/._a.png",
        "__MACOSX/a.png", "Thumbs.db", "sub/Thumbs.db", "ehthumbs.db", "desktop.ini", "Desktop.INI", "Icon\r", "Picasa.ini",
        ".picasa.ini", "@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg", "#recycle/a.png", "$RECYCLE.BIN/S-1/a.png",
        "System Volume Information/a", "lost+found/a.png", ".Trash-1000/files/a.png", ".git/a.png", ".AppleDouble/a.png",
        ".ipynb_checkpoints/a.png", "a.png.part", "a.jpg.crdownload", "~$notes.docx", "a.png~", "by hand_$folder$",
        "a.png@SynoEAStream",
    ],
)  # fmt: skip
def test_what_systems_and_tools_leave_is_known(name: str) -> None:
    assert is_leftover(name)


@pytest.mark.parametrize(
    "name",
    [
        "a.png",
        "sub.folder/a.b.png",
        "thumbs/a.png",
        "thumbs.png",
        "desktop/a.png",
        "recycle.png",
        "a..png",
        "partial.png",
    ],
)
def test_what_the_user_may_have_named_so_stays(name: str) -> None:
    assert not is_leftover(name)
