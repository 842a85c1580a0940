"""What `doctor` finds: a line a check, with the fact and what to do about it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from service.exits import MEANINGS, ExitCode, ServiceError, Stopped, judge


class Status(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True)
class Finding:
    """The end of one check. `exit_code` is that of the jobs which would fail for it; DONE unless it is a failure."""

    check: str
    status: Status
    fact: str
    advice: str = ""
    exit_code: ExitCode = ExitCode.DONE


def ok(check: str, fact: str) -> Finding:
    return Finding(check, Status.OK, fact)


def warning(check: str, fact: str, advice: str) -> Finding:
    return Finding(check, Status.WARNING, fact, advice)


def failure(check: str, error: Exception) -> Finding:
    """The finding for what a job would end with. Our own errors say what was found, and after a semicolon what to do."""
    code, message = judge(error)
    fact, separator, advice = message.rpartition("; ") if isinstance(error, ServiceError) else ("", "", "")
    if not separator:
        fact, advice = message, MEANINGS[code].next
    return Finding(check, Status.FAILURE, fact, advice, code)


def found(check: str, action: Callable[[], Finding]) -> Finding:
    """The finding of `action`. Whatever it raises is a finding too, but for Stopped: no check may hide the next one."""
    try:
        return action()
    except Stopped:
        raise
    except Exception as error:  # noqa: BLE001 - a check may meet anything, which is what it is for
        return failure(check, error)


def first_failure(findings: Iterable[Finding]) -> Finding | None:
    return next((finding for finding in findings if finding.status == Status.FAILURE), None)
