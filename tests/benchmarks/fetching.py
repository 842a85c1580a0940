"""Images a second from a list of URLs at 50 ms latency: ours against bing-image-downloader's own downloader.

`python -m tests.benchmarks.fetching`; both on the same list, through the same server, in turns.
"""

import asyncio
import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bing_image_downloader.bing import Bing

from service.artifacts.runs import Run
from service.dataset.candidates import Candidate
from service.dataset.collecting import collect
from service.dataset.preparation import Preparation
from service.dataset.sources.fetching import open_fetcher
from service.dataset.sources.web import UrlSource
from service.settings.data_prep import DataPrepSettings
from service.storage.local import LocalStore
from tests.benchmarks.loopback import loopback, url

LATENCY = 0.05
THEIRS = 100
OURS = 4000
ROUNDS = 2


def theirs(urls: Sequence[str], folder: Path) -> float:
    """Images a second of the library's downloader, which takes one after the other."""
    library = Bing("x", len(urls), folder, "off", 60, verbose=False)
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        for address in urls:
            library.download_image(address)
    seconds = time.perf_counter() - start
    assert len(list(folder.iterdir())) == len(urls)
    return len(urls) / seconds


def ours_to_files(urls: Sequence[str], folder: Path) -> float:
    """The same work: bytes from the web into files."""
    settings = DataPrepSettings()

    async def run() -> None:
        queue = iter(enumerate(urls))
        async with open_fetcher(settings) as fetcher:

            async def worker() -> None:
                for number, address in queue:
                    (folder / f"{number}.png").write_bytes(await fetcher.fetch(address))

            await asyncio.gather(*(worker() for _ in range(settings.fetch_concurrency)))

    start = time.perf_counter()
    asyncio.run(run())
    seconds = time.perf_counter() - start
    assert len(list(folder.iterdir())) == len(urls)
    return len(urls) / seconds


def ours_kept(urls: Sequence[str], folder: Path) -> float:
    """All that the job does with them: screened, hashed, encoded anew, and kept so that a kill does not lose them."""
    (folder / "list.csv").write_text("\n".join(["url", *urls]))
    settings = DataPrepSettings(source="urls", urls=str(folder / "list.csv"))
    source = UrlSource(settings)
    preparation = Preparation(Run(LocalStore(folder / "artifacts"), "benchmark"), settings, source)
    candidates = [Candidate(rank, address) for rank, address in enumerate(urls)]
    start = time.perf_counter()
    records = collect(candidates, source, preparation, settings)
    seconds = time.perf_counter() - start
    assert all(record.reason is None for record in records)
    return len(urls) / seconds


def main() -> None:
    urls = [url(number) for number in range(OURS)]
    figures: dict[str, list[float]] = {"theirs": [], "ours, to files": [], "ours, screened and kept": []}
    with loopback(LATENCY):
        for _ in range(ROUNDS):
            for name, run, part in (
                ("theirs", theirs, urls[:THEIRS]),
                ("ours, to files", ours_to_files, urls),
                ("ours, screened and kept", ours_kept, urls),
            ):
                with tempfile.TemporaryDirectory() as folder:
                    figures[name].append(run(part, Path(folder)))
    base = statistics.median(figures["theirs"])
    for name, rates in figures.items():
        rate = statistics.median(rates)
        print(f"{name:<26}{rate:8.1f} images/s  {rate / base:6.1f}x   ({min(rates):.1f} to {max(rates):.1f})")  # noqa: T201


if __name__ == "__main__":
    main()
