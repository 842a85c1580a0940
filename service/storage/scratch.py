"""Folders under construction, which vanish when the job is done with them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def scratch_folder(work_dir: Path) -> Iterator[Path]:
    """A new empty folder below `work_dir`, removed with all that is in it at the end."""
    work_dir.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=work_dir) as folder:
        yield Path(folder)
