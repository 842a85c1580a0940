"""How a job ended: its exit code, and JSON in a small file; and until then, what it is at, in case that it is killed.

Kubernetes shows the file in the status of the pod, and `kubectl describe` in its text.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from service.exits import MEANINGS, ExitCode, judge
from service.redaction import redacted_values, secrets_of

KUBERNETES = Path("/dev/termination-log")
MOST_BYTES = 4096
"""What Kubernetes keeps of a termination message; a longer one would be cut, and be no JSON any more."""
ELLIPSIS = "…"
NEVER_CUT = ("exit_name", "next")
UNDER_WAY = "UNDER_WAY"
"""In place of the name of an exit code, until there is one."""
NO_WORD = "not over yet, or killed before it could tell how it ended, as for too much memory"
KILLED_NEXT = "if it is over: see why it was killed, then start the job again; it goes on from what is stored"
REPORT_SECONDS = 2.0
"""Within which a process that is to end at once says so, or ends all the same."""

log = structlog.get_logger(__name__)


class End(NamedTuple):
    """How a job ended: with which code and, in one line, why; or with which result. `at_once`: nobody wants to wait."""

    code: ExitCode
    error: str = ""
    result: object = None
    at_once: bool = False


def guarded(action: Callable[[], object]) -> ExitCode:
    """Runs a job, or a process of one; whatever ends it becomes one line and an exit code, a bug a stack trace as well."""
    return ended(action).code


def ended(action: Callable[[], object]) -> End:
    """The same, with all that there is to say about the end."""
    global _began
    _facts.clear()
    _began = time.monotonic()
    try:
        return End(ExitCode.DONE, result=action())
    except Exception as error:
        # The one place where every failure becomes an exit code.
        code, message = judge(error)
        if code == ExitCode.STOPPED:
            log.info("stopped", reason=message, exit_code=int(code))  # as it should be: nobody is to be woken by it
        else:
            log.error("failed", error=message, exit_code=int(code), exc_info=code == ExitCode.BUG)
        return End(code, message)
    except KeyboardInterrupt:
        # The second Ctrl-C of an impatient person, who knows where it happened.
        message = "interrupted at once; what is finished is stored, start the job again to go on"
        log.info("stopped", reason=message, exit_code=int(ExitCode.STOPPED))
        return End(ExitCode.STOPPED, message, at_once=True)


_facts: dict[str, object] = {}
_under_way: dict[str, object] = {}
_began = time.monotonic()


def add_facts(**facts: object) -> None:
    """Adds to the outcome of this process what its job came to, besides the path of what it made."""
    _facts.update(facts)


def begin(job: str, run_id: str) -> None:
    """Leaves a note for the case that this process is killed, which would else leave the outcome of the one before."""
    _under_way.clear()
    _under_way.update(job=job, run_id=run_id, exit_name=UNDER_WAY)
    _write_note()


def note_progress(what: str, done: int, total: int) -> None:
    """Adds to the note of this process's job, where it has one, how far it is."""
    if _under_way:
        _under_way.update(doing=what, done=done, total=total)
        _write_note()


def _write_note() -> None:
    if (file := place(os.environ)) is not None:
        note = _under_way | {"note": NO_WORD, "next": KILLED_NEXT}
        with suppress(OSError):  # the outcome goes to the same place, and its writer warns
            file.write_bytes(as_json(redacted_values(note, secrets_of(os.environ))))


def place(environment: Mapping[str, str], kubernetes: Path = KUBERNETES) -> Path | None:
    """The file to write: OUTCOME_FILE, else that of Kubernetes where there is one. None: nobody asks."""
    if named := environment.get("OUTCOME_FILE"):
        return Path(named)
    return kubernetes if kubernetes.is_file() and os.access(kubernetes, os.W_OK) else None


def report_outcome(job: str, end: End) -> None:
    """Leaves the outcome of this process's job where Kubernetes, or whoever set OUTCOME_FILE, looks for it."""
    _under_way.clear()  # whatever another thread is still at
    write_outcome(place(os.environ), facts_of(job, end, os.environ))


def end_stopped(job: str, reason: str, report: Callable[[str, End], None] = report_outcome) -> None:
    """Ends the process here and now as one that was asked to stop, with its line and its outcome as `report` tells it."""
    # The main thread may hold a lock that what follows needs, and may not come back for minutes.
    threading.Timer(REPORT_SECONDS, os._exit, (int(ExitCode.STOPPED),)).start()
    report(job, End(ExitCode.STOPPED, reason))
    log.info("stopped", reason=reason, exit_code=int(ExitCode.STOPPED))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(ExitCode.STOPPED)


def facts_of(job: str, end: End, environment: Mapping[str, str]) -> dict[str, Any]:
    """All that there is to tell of the end of this process's job, without a secret."""
    run_id = structlog.contextvars.get_contextvars().get("run_id") or environment.get("RUN_ID") or ""
    facts: dict[str, Any] = {"job": job, "run_id": str(run_id), "exit_code": int(end.code), "exit_name": end.code.name}
    if end.error:
        facts |= {"error": end.error}
    elif isinstance(end.result, str):
        facts |= {"artifact": end.result}
    facts |= _facts | {"seconds": round(time.monotonic() - _began, 1), "next": MEANINGS[end.code].next}
    told: dict[str, Any] = redacted_values(facts, secrets_of(environment))
    return told


def write_outcome(file: Path | None, facts: dict[str, Any]) -> None:
    """Writes the file. That it cannot be written changes nothing about how the job ended, and is only warned about."""
    if file is None:
        return
    try:
        # In place, not by renaming: in a pod the file is a mount of its own.
        file.write_bytes(as_json(facts))
    except OSError as error:
        log.warning("outcome not written", file=str(file), error=error.strerror or str(error))


def as_json(facts: dict[str, Any]) -> bytes:
    """One line of JSON of at most 4096 bytes; a long error, or whatever else is long, loses its end."""
    content = _encoded(facts)
    texts = [name for name, fact in facts.items() if isinstance(fact, str) and name not in NEVER_CUT]
    for name in sorted(texts, key=lambda name: (name != "error", -len(facts[name]))):
        excess = len(content) - MOST_BYTES
        if excess > 0:
            text = facts[name]
            # A letter is a byte at least, so this is enough; and the ellipsis has to fit in too.
            kept = text[: max(0, len(text) - excess - len(ELLIPSIS.encode()))]
            facts = {**facts, name: kept + ELLIPSIS}
            content = _encoded(facts)
    return content


def _encoded(facts: dict[str, Any]) -> bytes:
    # Half a pair of UTF-16, as names of files may hold, has no bytes; as an escape it stays JSON.
    return json.dumps(facts, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
