"""Many small transfers at once."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from service.logs import progress

Item = TypeVar("Item")

THREADS = 8
WORTH_A_PROGRESS_BAR = 100


def for_each(action: Callable[[Item], None], items: Sequence[Item], what: str) -> None:
    """Calls `action` with every item on a few threads. The first failure stops the rest and is raised."""
    done = _completed(action, items)
    for _ in progress(done, what, len(items)) if len(items) >= WORTH_A_PROGRESS_BAR else done:
        pass


def _completed(action: Callable[[Item], None], items: Sequence[Item]) -> Iterator[None]:
    pool = ThreadPoolExecutor(THREADS)
    try:
        for future in as_completed([pool.submit(action, item) for item in items]):
            yield future.result()
    finally:
        # Also on the way out of an interruption: a pod that is told to stop must not upload the rest first.
        pool.shutdown(cancel_futures=True)
