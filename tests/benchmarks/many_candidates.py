"""One run over 100,000 candidates: its time, and the most memory that it was resident with.

`python -m tests.benchmarks.many_candidates [COUNT]`; tiny pictures over loopback, with captions, so that no model runs.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.loopback import loopback, url

COUNT = 100_000


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    with tempfile.TemporaryDirectory() as place, loopback(latency=0.0):
        folder = Path(place)
        rows = (f"{url(number)},a thing with the number {number}" for number in range(count))
        (folder / "list.csv").write_text("\n".join(["url,caption", *rows]) + "\n")
        variables = {
            "MODEL_BASE": "miniature",
            "DATA_PREP_SOURCE": "urls",
            "DATA_PREP_URLS": str(folder / "list.csv"),
            "DATA_PREP_LIMIT": str(count),
            "DATA_PREP_CANDIDATES": str(count),
            "DATA_PREP_CAPTIONER": "sidecar",
            "ARTIFACTS_URI": str(folder / "artifacts"),
            "WORK_DIR": str(folder / "work"),
        }
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "service", "data-prep"], env={**os.environ, **variables}, check=True, cwd=folder
        )
        minutes = (time.perf_counter() - start) / 60
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
    print(f"{count} candidates: {minutes:.1f} min, at most {peak} MiB resident")  # noqa: T201


if __name__ == "__main__":
    main()
