"""Secrets that must never be seen again, and where they are looked for."""

import base64
from pathlib import Path

from service.storage.interface import ObjectStore

CANARY = "canary7secret"
# A value of its own for each, so that a failure says which one leaks; credentials of a proxy and of an endpoint too.
CANARIES = {
    name: f"{CANARY}{number:02}{'x' * 12}"
    for number, name in enumerate(
        [
            "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "WANDB_API_KEY",
            "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN",
        ]
    )
} | {
    f"{scheme}_proxy": f"http://someone:{CANARY}proxy@127.0.0.1:9" for scheme in ("https", "http")
} | {"NO_PROXY": "127.0.0.1,localhost"}  # fmt: skip


def forms() -> list[bytes]:
    """How a secret may look: as it is, and in the header of a proxy or a server."""
    return [CANARY.encode(), *(base64.b64encode(f"{' ' * pad}{CANARY}".encode())[4:-4] for pad in range(3))]


def sightings_in_folder(folder: Path) -> list[str]:
    """Files below the folder, logs among them, that hold a secret, or whose name does."""
    return [
        str(file)
        for file in folder.rglob("*")
        if CANARY in str(file) or (file.is_file() and any(form in file.read_bytes() for form in forms()))
    ]


def sightings_in_store(store: ObjectStore) -> list[str]:
    return [entry.key for entry in store.list("") if any(form in store.get(entry.key) for form in forms())]
