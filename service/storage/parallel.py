"""Many small transfers at once."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, as_completed, wait
from typing import TypeVar

from service.logs import progress_bar
from service.stopping import StopCheck, never_stop

Item = TypeVar("Item")

THREADS = 8
WAITING = 4 * THREADS
"""Items handed out at once: enough that no thread waits, and no more, because each costs two kilobytes."""
WORTH_A_PROGRESS_BAR = 100


def for_each(
    action: Callable[[Item], None], items: Sequence[Item], what: str, stop_check: StopCheck = never_stop
) -> None:
    """Calls `stop_check`, then `action`, for every item on a few threads. The first failure stops the rest and is raised."""

    def work_on(item: Item) -> None:
        stop_check()
        action(item)

    done = _completed(work_on, items)
    for _ in progress_bar(done, what, len(items)) if len(items) >= WORTH_A_PROGRESS_BAR else done:
        pass


def _completed(action: Callable[[Item], None], items: Sequence[Item]) -> Iterator[None]:
    pool = ThreadPoolExecutor(THREADS)
    under_way: set[Future[None]] = set()
    try:
        for item in items:
            if len(under_way) == WAITING:
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
            under_way.add(pool.submit(action, item))
        for future in as_completed(under_way):
            yield future.result()
    finally:
        # Also on the way out of an interruption: a pod that is told to stop must not upload the rest first.
        pool.shutdown(cancel_futures=True)
