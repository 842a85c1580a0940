"""A gigabyte of artifacts up and down: `publish` and `fetch` against `rclone copy`, through the same S3 server, in turns.

`python -m tests.benchmarks.transfers [MEGABYTES]`. The server is rclone's own. Both check what arrived by checksum: rclone by
MD5, ours by MD5 on the way and by sha256 end to end. Ours also lists what it has put before it writes the manifest, for which
this server, unlike S3, reads every file again: a fifth of the time of going up.
"""

import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from service.artifacts.fetching import fetch
from service.artifacts.publishing import publish_version
from service.storage.opening import open_store
from tests.servers import S3Server, executable, rclone_server

MEGABYTES = 1024
LARGE, SMALL = 30, 200
ROUNDS = 6


def make_folder(folder: Path, megabytes: int) -> int:
    """Files of 1 to 64 MB, and small ones of some kilobytes; random, so that nothing compresses. Returns their bytes."""
    chance = random.Random(7)
    wanted = [chance.uniform(1, 64) for _ in range(LARGE)]
    scale = megabytes * 1e6 / sum(wanted)
    sizes = [int(size * scale) for size in wanted] + [chance.randrange(100, 20_000) for _ in range(SMALL)]
    folder.mkdir()
    for number, size in enumerate(sizes):
        (folder / f"{number:04}.bin").write_bytes(os.urandom(size))
    return sum(sizes)


def copy_with_rclone(source: str, target: str, server: S3Server) -> None:
    environment = os.environ | {
        "RCLONE_CONFIG_LOOPBACK_TYPE": "s3",
        "RCLONE_CONFIG_LOOPBACK_PROVIDER": "Rclone",
        "RCLONE_CONFIG_LOOPBACK_ENDPOINT": server.environment["AWS_ENDPOINT_URL"],
        "RCLONE_CONFIG_LOOPBACK_ACCESS_KEY_ID": server.environment["AWS_ACCESS_KEY_ID"],
        "RCLONE_CONFIG_LOOPBACK_SECRET_ACCESS_KEY": server.environment["AWS_SECRET_ACCESS_KEY"],
    }
    subprocess.run([str(executable("rclone")), "copy", source, target], env=environment, check=True)


def timed(action: Callable[[], object]) -> float:
    os.sync()  # what the one before has written is not written out at the expense of the next
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def one_round(folder: Path, place: Path, server: S3Server, ours_first: bool) -> dict[str, float]:
    """Seconds of each transfer."""
    store = open_store(f"s3://{server.new_bucket()}/ours")
    theirs = f"loopback:{server.new_bucket()}/theirs"
    path = ""

    def publish_ours() -> None:
        nonlocal path
        path = publish_version(store, folder, kind="dataset", prefix="datasets/noise").path

    both = [
        {
            "ours, up": publish_ours,
            "rclone, up": lambda: copy_with_rclone(str(folder), theirs, server),
        },
        {
            "ours, down": lambda: fetch(store, path, place / "work"),
            "rclone, down": lambda: copy_with_rclone(theirs, str(place / "copy"), server),
        },
    ]
    return {
        name: timed(action)
        for pair in both
        for name, action in (pair.items() if ours_first else reversed(pair.items()))
    }


def main(megabytes: int) -> None:
    figures: dict[str, list[float]] = {"ours, up": [], "rclone, up": [], "ours, down": [], "rclone, down": []}
    with tempfile.TemporaryDirectory() as scratch:
        size = make_folder(Path(scratch, "made"), megabytes)
        for number in range(ROUNDS):
            with rclone_server(Path(scratch, "server")) as server:
                os.environ.update(server.environment)
                seconds = one_round(Path(scratch, "made"), Path(scratch, "place"), server, number % 2 == 0)
            for name, took in seconds.items():
                figures[name].append(size / took / 1e6)
            shutil.rmtree(Path(scratch, "server"))
            shutil.rmtree(Path(scratch, "place"))
    for name, rates in figures.items():
        # Within each round: the machine has its moods.
        ratios = [rate / peer for rate, peer in zip(rates, figures["rclone" + name[name.index(",") :]], strict=True)]
        told = f"{statistics.median(ratios):5.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{name:<14}{statistics.median(rates):8.0f} MB/s  {told}")  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else MEGABYTES)
