"""Candidates to outcomes, many at once: read, screened and kept one by one, so that a kill costs only what was under way."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import repeat

import structlog

from service import stopping
from service.cpus import usable_cpus
from service.dataset.candidates import Candidate, Record, Rejection, Transient
from service.dataset.images.decoding import quiet_decoders
from service.dataset.images.screening import screen
from service.dataset.preparation import Preparation
from service.dataset.selection import by_turns
from service.dataset.sources.interface import Read, Source
from service.exits import Stopped
from service.logs import progress_bar
from service.settings.data_prep import DataPrepSettings

STORE_THREADS = 16

log = structlog.get_logger(__name__)


def collect(
    candidates: Sequence[Candidate], source: Source, preparation: Preparation, settings: DataPrepSettings
) -> list[Record]:
    """The records of all `candidates`, by rank. What the preparation knows already is not read again."""
    known = preparation.outcomes(candidates)
    ranks = {record.candidate.rank for record in known}
    unknown = [candidate for candidate in candidates if candidate.rank not in ranks]
    if known:
        log.info("goes on", done=len(known), open=len(unknown))
    with quiet_decoders():
        found = asyncio.run(_collect(unknown, source, preparation, settings))
    return sorted([*known, *found], key=lambda record: record.candidate.rank)


async def _collect(
    candidates: Sequence[Candidate], source: Source, preparation: Preparation, settings: DataPrepSettings
) -> list[Record]:
    with (
        ThreadPoolExecutor(usable_cpus(), thread_name_prefix="screen") as screening,
        ThreadPoolExecutor(STORE_THREADS, thread_name_prefix="store") as storing,
    ):
        async with source.reading() as read:
            crew = _Crew(read, _Keeper(preparation, storing), settings, screening)
            first = await crew.work_on(candidates, "collecting")
            # Again, when all else is done: a host that was down may have recovered.
            second = await crew.work_on([record.candidate for record in first.transient], "trying again")
    return [*first.final, *second.final, *second.transient]


class _Keeper:
    """Stores outcomes, those that wait for the store together as one object."""

    def __init__(self, preparation: Preparation, threads: Executor) -> None:
        self._preparation = preparation
        self._threads = threads
        self._waiting: list[Record] = []
        self._turn = asyncio.Lock()

    async def keep(self, record: Record, png: bytes | None) -> None:
        """Returns when the outcome, and after it its picture, would survive a kill."""
        loop = asyncio.get_running_loop()
        self._waiting.append(record)
        async with self._turn:
            if record in self._waiting:  # else who had the turn before has stored it as well
                records, self._waiting = self._waiting, []
                await loop.run_in_executor(self._threads, self._preparation.keep_outcomes, records)
        if png is not None:
            await loop.run_in_executor(self._threads, self._preparation.keep_png, record, png)


@dataclass(frozen=True)
class _Outcomes:
    """Records that are final, and those of failures that another attempt may not meet."""

    final: list[Record] = field(default_factory=list)
    transient: list[Record] = field(default_factory=list)


@dataclass(frozen=True)
class _Crew:
    """Workers side by side, each with one candidate. Pillow lets go of the interpreter, so threads are enough."""

    read: Read
    keeper: _Keeper
    settings: DataPrepSettings
    screening: Executor

    async def work_on(self, candidates: Sequence[Candidate], what: str) -> _Outcomes:
        """Does all candidates, as many at once as the settings allow. The first failure of our own ends it.

        Raises Stopped when a stop was requested, once those that were under way are kept: it takes as long as one fetch at
        most.
        """
        outcomes = _Outcomes()
        if not candidates:
            return outcomes
        queue = iter(by_turns(candidates))
        # One step for each candidate that is done, and one beyond the last for the final report.
        with closing(progress_bar(repeat(None), what, len(candidates))) as steps:
            next(steps)
            try:
                async with asyncio.TaskGroup() as workers:
                    for _ in range(min(self.settings.fetch_concurrency, len(candidates))):
                        workers.create_task(self._worker(queue, outcomes, lambda: next(steps)))
            except ExceptionGroup as failures:
                raise failures.exceptions[0] from None
            stopping.check()
        return outcomes

    async def _worker(self, queue: Iterable[Candidate], outcomes: _Outcomes, advance: Callable[[], None]) -> None:
        for candidate in queue:
            if stopping.requested():
                return
            try:
                outcomes.final.append(await self._outcome(candidate))
            except Stopped:
                return
            except Transient as failure:
                outcomes.transient.append(Record(candidate, failure.reason, failure.detail))
            advance()

    async def _outcome(self, candidate: Candidate) -> Record:
        """The record of one candidate, once it is kept; raises Transient, of which nothing is kept."""
        png = None
        try:
            source = await self.read(candidate)
            screened = await asyncio.get_running_loop().run_in_executor(self.screening, screen, source, self.settings)
            record = Record(candidate, screened.reason, screened.detail, screened.features)
            png = screened.png
        except Transient:
            raise
        except Rejection as rejection:
            record = Record(candidate, rejection.reason, rejection.detail)
        if record.reason is not None:
            log.debug("left out", origin=candidate.origin, reason=record.reason, detail=record.detail)
        await self.keeper.keep(record, png)
        return record
