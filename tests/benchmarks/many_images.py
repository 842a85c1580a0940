"""Peak memory of training on 20,000 images, and on a tenth of them, with the cache left in its files.

What the process has of its own is told apart from the pages of files that it has mapped: those the system takes back, and
leaves to it as long as nobody else needs the memory.

`python -m tests.benchmarks.many_images [IMAGES]`; images of noise, 64 × 64; the miniature; the whole job, encoding included.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from service.artifacts.publishing import publish_version
from service.storage.opening import open_store

IMAGES = 20_000
LOOK_EVERY = 0.05
"""Seconds."""


def publish_noise(folder: Path, count: int) -> str:
    """A data set of `count` images, published; its path."""
    rng = np.random.default_rng(count)
    for split, number in (("train", count), ("validation", 16)):
        images = folder / "data" / "imagefolder" / split
        images.mkdir(parents=True)
        lines = ["file_name,caption"]
        for index in range(number):
            Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(
                images / f"{index:06}.png", compress_level=1
            )
            lines.append(f'{index:06}.png,"noise, {index % 50}"')
        (images / "metadata.csv").write_text("\n".join(lines) + "\n")
    store = open_store(str(folder / "artifacts"))
    return publish_version(store, folder / "data", kind="dataset", prefix="datasets/noise").path


def peaks(count: int) -> tuple[float, float, float]:
    """Peaks in MiB of `sdlora train`, of its own memory and of mapped files, and its seconds."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        environment = {
            **os.environ,
            "TRAIN_DATASET": publish_noise(folder, count),
            "ARTIFACTS_URI": str(folder / "artifacts"),
            "WORK_DIR": str(folder / "work"),
            "MODEL_BASE": "miniature",
            "TRAIN_PROFILE": "miniature",
            "TRAIN_MAX_STEPS": "100",
            "TRAIN_RANDOM_FLIP": "0",
            "TRAIN_CACHE_ON_DEVICE": "never",
            "TRAIN_SAMPLES": "0",
        }
        begin = time.monotonic()
        own = mapped = 0.0
        said = folder / "said"
        with said.open("wb") as errors:
            process = psutil.Popen([sys.executable, "-m", "service", "train"], env=environment, stderr=errors)
            while process.poll() is None:
                memory = process.memory_info()
                own = max(own, (memory.rss - memory.shared) / 2**20)
                mapped = max(mapped, memory.shared / 2**20)
                time.sleep(LOOK_EVERY)
        if process.returncode:
            raise RuntimeError(said.read_text()[-2000:])
        return own, mapped, time.monotonic() - begin


def main(count: int) -> None:
    for images in (count // 10, count):
        own, mapped, took = peaks(images)
        sys.stdout.write(f"{images} images: {own:.0f} MiB of its own, {mapped:.0f} MiB of mapped files, {took:.0f} s\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else IMAGES)
