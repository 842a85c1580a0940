"""What an attempt at a training wrote for TensorBoard."""

import uuid
from pathlib import Path

from service.artifacts import layout
from service.artifacts.publishing import Artifact, publish
from service.storage.interface import ObjectStore

KIND = "tensorboard"
FILES = {"**/events.out.tfevents.*": "Event files."}


def write(store: ObjectStore, folder: Path, *, run_id: str) -> Artifact:
    """Publishes the event files in `folder`, beside those of other attempts."""
    return publish(store, folder, kind=KIND, path=layout.Tensorboard(run_id, uuid.uuid4().hex[:12]).path)
