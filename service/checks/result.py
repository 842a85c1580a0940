"""What `doctor` finds: a line a check, with the fact and what to do about it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from service.exits import MEANINGS, ExitCode, ServiceError, Stopped, judge


class CheckStatus(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True)
class CheckResult:
    """The end of one check. `exit_code` is that of the jobs which would fail for it; DONE unless it is a failure."""

    check: str
    status: CheckStatus
    fact: str
    advice: str = ""
    exit_code: ExitCode = ExitCode.DONE


def ok(check: str, fact: str) -> CheckResult:
    return CheckResult(check, CheckStatus.OK, fact)


def warning(check: str, fact: str, advice: str) -> CheckResult:
    return CheckResult(check, CheckStatus.WARNING, fact, advice)


def failure(check: str, error: Exception) -> CheckResult:
    """The result for what a job would end with. Our own errors say what was found, and after a semicolon what to do."""
    code, message = judge(error)
    fact, separator, advice = message.rpartition("; ") if isinstance(error, ServiceError) else ("", "", "")
    if not separator:
        fact, advice = message, MEANINGS[code].next
    return CheckResult(check, CheckStatus.FAILURE, fact, advice, code)


def result_of(check: str, action: Callable[[], CheckResult]) -> CheckResult:
    """The result of `action`. Whatever it raises is a result too, but for Stopped: no check may hide the next one."""
    try:
        return action()
    except Stopped:
        raise
    except Exception as error:  # noqa: BLE001 - a check may meet anything, which is what it is for
        return failure(check, error)


def first_failure(results: Iterable[CheckResult]) -> CheckResult | None:
    return next((result for result in results if result.status == CheckStatus.FAILURE), None)
