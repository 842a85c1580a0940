"""The built image, run as a cluster runs it."""

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# What Pod Security `restricted` and a read-only root leave a container, and the network of the loopback S3 server.
AS_IN_A_POD = [
    "--read-only",
    "--tmpfs=/tmp",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
    "--user=10001",
    "--network=host",
]
SECONDS_FOR_A_JOB = 1800


@dataclass(frozen=True)
class Image:
    """An image that the engine (podman or docker) has."""

    engine: str
    name: str

    @classmethod
    def built(cls) -> "Image":
        """The image that SDLORA_IMAGE names, in the engine that CONTAINER_ENGINE names."""
        engine = os.environ.get("CONTAINER_ENGINE", "podman")
        image = cls(engine, os.environ.get("SDLORA_IMAGE", "localhost/sdlora:latest"))
        assert image.engine_says("image", "inspect", image.name).returncode == 0, (
            f"{engine} has no image {image.name}; build it with `make image`, or name another in SDLORA_IMAGE"
        )
        return image

    def run(
        self, *command: str, variables: Mapping[str, str] | None = None, options: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Runs the image with `command` as arguments, told everything by environment variables."""
        told = [f"--env={name}={value}" for name, value in (variables or {}).items()]
        return self.engine_says("run", "--rm", *AS_IN_A_POD, *told, *options, self.name, *command)

    def python(self, program: str, *options: str) -> str:
        """What a program in the image's own Python writes to standard output."""
        ended = self.run("-c", program, options=("--entrypoint=python", *options))
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.strip()

    def configuration(self) -> dict[str, Any]:
        """Entry point, user, environment and labels, as the image states them."""
        described = json.loads(self.engine_says("image", "inspect", self.name).stdout)
        configuration: dict[str, Any] = described[0]["Config"]
        return configuration

    def history(self) -> str:
        """Every instruction that made the image, with the values that were put in."""
        return self.engine_says("history", "--no-trunc", "--format={{.CreatedBy}}", self.name).stdout

    def engine_says(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.engine, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS_FOR_A_JOB,
            check=False,
        )
