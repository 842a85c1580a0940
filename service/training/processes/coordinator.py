"""Processes that stop together: whichever of them is asked to, all do so between the same two pieces of work."""

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
from service.stopping import StopCheck


class _MainActivity(IntEnum):
    """What the main process does while the others wait for it."""

    NONE = 0
    STOPPABLE = 1
    UNSTOPPABLE = 2


class Coordinator:
    """Asked by all processes of a training alike often, it gives all of them the same answer.

    For one process it is the flag of `service.stopping` alone. Else each question is one exchange of two numbers over a
    group on the CPU, for which no device has to come to a halt. `heartbeat` is called for each piece of work that is done.
    """

    def __init__(self, accelerator: Accelerator, timeout: float = 600, heartbeat: StopCheck = lambda: None) -> None:
        self.accelerator = accelerator
        self._heartbeat = heartbeat
        several = accelerator.num_processes > 1
        self._group: Any = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout)) if several else None

    def stop_requested(self) -> bool:
        """Whether any process was asked to stop."""
        self._heartbeat()
        return self._exchange(_MainActivity.NONE)[0]

    def any_of_all(self, answer: bool) -> bool:
        """Whether any process says so."""
        if self._group is None:
            return answer
        answers = torch.tensor([answer], dtype=torch.uint8)
        dist.all_reduce(answers, op=dist.ReduceOp.MAX, group=self._group)
        return bool(answers[0])

    def check(self) -> None:
        """Raises Stopped, in all processes, when any of them was asked to stop."""
        if self.stop_requested():
            raise Stopped(stopping.REASON)

    @contextmanager
    def independently(self) -> Iterator[StopCheck]:
        """A block that each process goes through at its own pace: one that is asked to stop leaves it, and all stop after it.

        Gives the stop check of the block, which raises Stopped in this process when it was asked to.
        """

        def stop_check() -> None:
            self._heartbeat()
            stopping.check()

        with suppress(Stopped):
            yield stop_check
        self.check()

    def run_on_main(self, action: Callable[[StopCheck], object]) -> None:
        """The main process runs `action(stop_check)`, the others wait for it as long as it takes.

        It calls `stop_check` between two pieces of its work; that raises Stopped, in all processes, when any was asked to.
        """

        def stop_check() -> None:
            self._heartbeat()
            if self._exchange(_MainActivity.STOPPABLE)[0]:
                raise Stopped(stopping.REASON)

        self._run_on_main(action, stop_check)

    def wait_on_main(self, action: Callable[[Callable[[], None]], object]) -> None:
        """The same for work that is done to its end, whoever is asked to stop: `meanwhile` keeps up the patience of the others.

        It is no heartbeat: to wait for something that never comes is no sign of life.
        """

        def meanwhile() -> None:
            self._exchange(_MainActivity.UNSTOPPABLE)

        self._run_on_main(action, meanwhile)

    def _run_on_main(self, action: Callable[[Callable[[], None]], object], exchange: Callable[[], None]) -> None:
        if self.accelerator.is_main_process:
            action(exchange)
            self._exchange(_MainActivity.NONE)
            return
        activity = _MainActivity.STOPPABLE
        while activity != _MainActivity.NONE:
            stop, activity = self._exchange(_MainActivity.NONE)
            if activity == _MainActivity.STOPPABLE:
                self._heartbeat()
                if stop:
                    raise Stopped(stopping.REASON)

    def _exchange(self, activity: _MainActivity) -> tuple[bool, _MainActivity]:
        """Whether any process was asked to stop, and what the main one is at."""
        if self._group is None:
            return stopping.requested(), activity
        answers = torch.tensor([stopping.requested(), activity], dtype=torch.uint8)
        dist.all_reduce(answers, op=dist.ReduceOp.MAX, group=self._group)
        return bool(answers[0]), _MainActivity(int(answers[1]))
