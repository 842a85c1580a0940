"""Which code this is: version and commit, for the manifests of what it makes."""

import importlib.metadata
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
COMMIT_FILE = "COMMIT"
"""Written into the package when the image is built, because the image has neither git nor a checkout."""
SECONDS = 5
DIGITS = 12


@cache
def code_version() -> str:
    """Such as `0.1.0+ef05282f1c2a`, with `.dirty` for a checkout that was changed; without a commit the version alone.

    The version is `unknown` in a checkout that was never installed. Computed once a process.
    """
    version = release()
    commit = _built_from(PACKAGE) or _checked_out(PACKAGE.parent)
    return f"{version}+{commit}" if commit else version


def release() -> str:
    """The version alone, such as `0.1.0`: the same for every build of a release. `unknown` where it was never installed."""
    return distribution_version("sdlora") or "unknown"


@cache
def distribution_version(name: str) -> str | None:
    """The version of an installed distribution, from its metadata: importing some of them takes seconds."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _built_from(package: Path) -> str:
    """The commit that was noted when the image was built; empty for a build that was not told it."""
    try:
        return (package / COMMIT_FILE).read_text().strip()
    except OSError:
        return ""


def _checked_out(root: Path) -> str:
    """The commit of the checkout at `root`; empty where that is none, or git is missing or refuses to tell."""
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        return ""
    command = [git, "-C", str(root), "describe", "--always", f"--abbrev={DIGITS}", "--exclude=*", "--dirty=.dirty"]
    try:
        # Without locks: a job that only reads must not come between its owner and the index.
        environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True, env=environment)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
