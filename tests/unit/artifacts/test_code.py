"""Manifests say which code made what they are of: the version, and the commit of the image or of the checkout."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.artifacts import code, manifest
from service.artifacts.code import code_version
from service.artifacts.publishing import publish, publish_version
from service.storage.local import LocalStore

ROOT = Path(__file__).parents[3]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package that lies in no checkout."""
    (tmp_path / "service").mkdir()
    monkeypatch.setattr(code, "PACKAGE", tmp_path / "service")
    monkeypatch.setattr(code, "distribution_version", lambda _: "1.2.3")
    code_version.cache_clear()
    yield tmp_path / "service"
    code_version.cache_clear()


def git(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(
        ["git", *who, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_an_image_tells_the_commit_that_it_was_built_from(package: Path) -> None:
    (package / "COMMIT").write_text("0123456789ab")
    assert code_version() == "1.2.3+0123456789ab"


def test_a_checkout_tells_its_commit_and_whether_it_was_changed(package: Path) -> None:
    git(package.parent, "init", "-q")
    (package / "module.py").write_text("")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-q", "-m", "first")
    commit = git(package.parent, "rev-parse", "HEAD")[:12]
    assert code_version() == f"1.2.3+{commit}"
    (package / "module.py").write_text("changed")
    assert code_version() == f"1.2.3+{commit}"  # computed once
    code_version.cache_clear()
    assert code_version() == f"1.2.3+{commit}.dirty"


@pytest.mark.parametrize("git_is", ["missing", "broken"])
def test_without_git_or_a_commit_the_version_stands_alone(
    git_is: str, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (package.parent / ".git").mkdir()
    (tmp_path / "bin").mkdir()
    if git_is == "broken":
        (tmp_path / "bin/git").write_text("#!/bin/sh\nexit 128\n")
        (tmp_path / "bin/git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert code_version() == "1.2.3"
    (package / "COMMIT").write_text("")
    code_version.cache_clear()
    assert code_version() == "1.2.3"


@pytest.mark.usefixtures("package")
def test_where_there_is_no_checkout_no_program_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "run", refuse)
    assert code_version() == "1.2.3"


def test_this_very_checkout_is_told() -> None:
    program = "from service.artifacts.code import code_version; print(code_version())"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    in_git = (ROOT / ".git").exists()
    assert re.fullmatch(r"[0-9a-z.]+" + (r"\+[0-9a-f]{12}(\.dirty)?" if in_git else ""), done.stdout.strip())


def test_the_same_by_another_commit_is_the_same_artifact_and_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path / "artifacts")
    (tmp_path / "made").mkdir()
    (tmp_path / "made/file").write_bytes(b"content")

    def publish_both() -> dict[str, bytes]:
        publish(store, tmp_path / "made", kind="lora", path="runs/a/lora", settings={"seed": 1})
        publish_version(store, tmp_path / "made", kind="dataset", prefix="datasets/a", settings={"seed": 1})
        return {entry.key: store.get(entry.key) for entry in store.list("")}

    monkeypatch.setattr(manifest, "code_version", lambda: "0.1.0+0123456789ab")
    first = publish_both()
    monkeypatch.setattr(manifest, "code_version", lambda: "0.1.0+ba9876543210")
    assert publish_both() == first
    assert sum(b"0.1.0+0123456789ab" in content for content in first.values()) == 2
