"""Users' own images."""

import os
from pathlib import Path

from service.dataset.sources.folders import FolderSource


def test_the_state_of_a_folder_changes_with_every_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"one")
    states = [FolderSource(tmp_path, "ours").state()]
    assert FolderSource(tmp_path, "ours").state() == states[0]
    (tmp_path / "b.png").write_bytes(b"two")
    states.append(FolderSource(tmp_path, "ours").state())
    (tmp_path / "b.png").write_bytes(b"six")
    os.utime(tmp_path / "b.png", (1, 1))
    states.append(FolderSource(tmp_path, "ours").state())
    (tmp_path / "a.png").unlink()
    states.append(FolderSource(tmp_path, "ours").state())
    assert len(set(states)) == 4
