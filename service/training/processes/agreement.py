"""Processes that stop together: whoever of them is told, all do so between the same two pieces of work."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from enum import IntEnum
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator

from service import stopping
from service.exits import Stopped
from service.storage.parallel import StopCheck


class Work(IntEnum):
    """What the first process does while the others wait for it."""

    NONE = 0
    MAY_STOP = 1
    TO_ITS_END = 2


class Agreement:
    """Asked by all processes of a training alike often, it gives all of them the same answer.

    For one process it is the flag of `service.stopping` alone. Else each question is one exchange of two numbers over a
    group on the CPU, for which no device has to come to a halt. `heard` is called for each piece of work that is done.
    """

    def __init__(self, accelerator: Accelerator, timeout: float = 600, heard: StopCheck = lambda: None) -> None:
        self.accelerator = accelerator
        self._heard = heard
        several = accelerator.num_processes > 1
        self._group: Any = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout)) if several else None

    def told(self) -> bool:
        """Whether any process was told to stop."""
        self._heard()
        return self._exchange(Work.NONE)[0]

    def check(self) -> None:
        """Raises Stopped, in all processes, when any of them was told to stop."""
        if self.told():
            raise Stopped(stopping.TOLD)

    @contextmanager
    def each_alone(self) -> Iterator[StopCheck]:
        """A block that the processes go through each at its own pace: who is told to stop leaves it, and all stop after it.

        Gives the pause of the block, which raises Stopped in this process when it was told to.
        """

        def between() -> None:
            self._heard()
            stopping.check()

        with suppress(Stopped):
            yield between
        self.check()

    def led(self, action: Callable[[StopCheck], object]) -> None:
        """The first process runs `action(between)`, the others wait for it as long as it takes.

        It calls `between` between two pieces of its work; that raises Stopped, in all processes, when any was told to.
        """

        def between() -> None:
            self._heard()
            if self._exchange(Work.MAY_STOP)[0]:
                raise Stopped(stopping.TOLD)

        self._lead(action, between)

    def awaited(self, action: Callable[[StopCheck], object]) -> None:
        """The same for work that is done to its end, whoever is told what: `meanwhile` keeps up the patience of the others.

        It says nothing of progress: to wait for something that never comes is no sign of life.
        """

        def meanwhile() -> None:
            self._exchange(Work.TO_ITS_END)

        self._lead(action, meanwhile)

    def _lead(self, action: Callable[[StopCheck], object], pause: StopCheck) -> None:
        if self.accelerator.is_main_process:
            action(pause)
            self._exchange(Work.NONE)
            return
        work = Work.MAY_STOP
        while work != Work.NONE:
            told, work = self._exchange(Work.NONE)
            if work == Work.MAY_STOP:
                self._heard()
                if told:
                    raise Stopped(stopping.TOLD)

    def _exchange(self, work: Work) -> tuple[bool, Work]:
        """Whether any process was told to stop, and what the first one is at."""
        if self._group is None:
            return stopping.requested(), work
        answers = torch.tensor([stopping.requested(), work], dtype=torch.uint8)
        dist.all_reduce(answers, op=dist.ReduceOp.MAX, group=self._group)
        return bool(answers[0]), Work(int(answers[1]))
