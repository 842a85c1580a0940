"""A copy of a store of before, the jobs run on it as processes of their own, and what has changed in it since."""

import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECONDS = 300
# A process that has the libraries loaded, and forks one for each job: a start takes a moment rather than ten seconds.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["torch", "diffusers", "transformers", "peft", "accelerate", "datasets"])

Contents = dict[str, tuple[bytes, int | None]]


@dataclass(frozen=True)
class End:
    """How a job ended, and what it wrote to standard output and to standard error."""

    code: int
    output: str
    said: str


@dataclass(frozen=True)
class StoreOfBefore:
    """A copy of a folder of this directory: store, pictures and models, which the settings name relative to it."""

    fixture: Path
    folder: Path

    @classmethod
    def copied(cls, fixture: Path, folder: Path) -> "StoreOfBefore":
        """The pictures get back the time of then, which a checkout does not keep: data-prep asks for it."""
        shutil.copytree(fixture, folder)
        store = cls(fixture, folder)
        written = store.read("variables.json")["pictures_written"]
        for file in (folder / "pictures").iterdir():
            os.utime(file, (written, written))
        return store

    @property
    def artifacts(self) -> Path:
        return self.folder / "artifacts"

    @property
    def expected(self) -> Any:
        """What the code of then made of it."""
        return self.read("expected.json")

    def read(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())

    def run(self, job: str, run_id: str, *flags: str, **variables: str) -> End:
        """`sdlora JOB` as it was run then, but for `variables`."""
        then = self.read("variables.json")
        ended = [self.folder / f"{job}.{name}" for name in ("output", "said")]
        environment = {**os.environ, "LOG_FORMAT": "json", **then["all"], **then[run_id], **variables}
        process = SERVER.Process(target=run_job, args=([job, *flags], self.folder, environment, *ended))
        process.start()
        process.join(SECONDS)
        if process.is_alive():
            process.kill()
            raise AssertionError(f"still running after {SECONDS} s: {ended[1].read_text()[-2000:]}")
        assert process.exitcode is not None
        return End(process.exitcode, *(file.read_text() for file in ended))

    def contents(self) -> Contents:
        """Path → bytes of every file of the store; of those of an artifact, which never change, the time of writing too."""
        files = sorted(path for path in self.artifacts.rglob("*") if path.is_file())
        artifacts = {path.parent for path in files if path.name == "MANIFEST.json"}
        return {
            path.relative_to(self.artifacts).as_posix(): (
                path.read_bytes(),
                path.stat().st_mtime_ns if artifacts & set(path.parents) else None,
            )
            for path in files
        }

    def forget(self, setting: str, run_id: str) -> None:
        """Takes a setting out of what the run's manifests tell, as if the code of then had not known it."""
        manifests = sorted((self.artifacts / "runs" / run_id).rglob("MANIFEST.json"))
        told = {manifest: json.loads(manifest.read_text()) for manifest in manifests}
        knowing = {manifest: content for manifest, content in told.items() if setting in content["settings"]}
        assert knowing, f"no manifest of {run_id} knows {setting}"
        for manifest, content in knowing.items():
            del content["settings"][setting]
            manifest.write_text(json.dumps(content, sort_keys=True, indent=2, ensure_ascii=False) + "\n")


def run_job(arguments: list[str], folder: Path, environment: Mapping[str, str], output: Path, said: Path) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for file, descriptor in ((output, 1), (said, 2)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    import torch

    torch.set_num_threads(1)
    from service.__main__ import run

    code = run(arguments)
    sys.stdout.flush()
    sys.exit(code)
