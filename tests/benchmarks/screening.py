"""Images a second and core that are decoded, judged, hashed and encoded anew, against Pillow's bare decode and encode.

`python -m tests.benchmarks.screening`; 512×512 JPEGs with the noise of a camera, one core, in turns. Pillow encodes once
with its own defaults, as a script would, and once with the encoder settings that we chose.
"""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from io import BytesIO

import numpy as np
from PIL import Image

from service.dataset.images.decoding import quiet_decoders
from service.dataset.images.screening import RUN_LENGTHS, screen
from service.settings.data_prep import DataPrepSettings

IMAGES = 24
ROUNDS = 7
SIDE = 512
NOISE = 6
"""Standard deviation, of 255."""


def photo(seed: int) -> bytes:
    dice = np.random.default_rng(seed)
    coarse = Image.fromarray(dice.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float64)
    noisy = (smooth + dice.normal(0, NOISE, smooth.shape)).clip(0, 255).astype(np.uint8)
    buffer = BytesIO()
    Image.fromarray(noisy).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def bare(**options: int) -> Callable[[bytes], None]:
    def run(source: bytes) -> None:
        with Image.open(BytesIO(source)) as image:
            image.convert("RGB").save(BytesIO(), "PNG", **options)

    return run


def rate(work: Callable[[bytes], object], images: Sequence[bytes]) -> float:
    start = time.perf_counter()
    for image in images:
        work(image)
    return len(images) / (time.perf_counter() - start)


def main() -> None:
    os.sched_setaffinity(0, {0})
    images = [photo(seed) for seed in range(IMAGES)]
    settings = DataPrepSettings()
    works: dict[str, Callable[[bytes], object]] = {
        "screen (decode, judge, hash, encode)": lambda source: screen(source, settings),
        "Pillow, decode + encode by default": bare(),
        "Pillow, decode + encode as we do": bare(compress_level=1, compress_type=RUN_LENGTHS),
    }
    rates: dict[str, list[float]] = {name: [] for name in works}
    with quiet_decoders():
        for _ in range(ROUNDS):
            for name, work in works.items():
                rates[name].append(rate(work, images))
    ours = rates["screen (decode, judge, hash, encode)"]
    for name, measured in rates.items():
        ratio = statistics.median(mine / theirs for mine, theirs in zip(ours, measured, strict=True))
        print(f"{name:<40}{statistics.median(measured):7.1f} images/s   ours / this {ratio:5.2f}")  # noqa: T201


if __name__ == "__main__":
    main()
