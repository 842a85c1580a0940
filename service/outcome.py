"""How a job ended, as JSON in a small file: Kubernetes shows it in the status of the pod, `kubectl describe` in its text."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from service.exits import MEANINGS
from service.logs import End
from service.redaction import redacted_values, secrets_of

KUBERNETES = Path("/dev/termination-log")
MOST_BYTES = 4096
"""What Kubernetes keeps of a termination message; a longer one would be cut, and be no JSON any more."""
ELLIPSIS = "…"

log = structlog.get_logger(__name__)


def place(environment: Mapping[str, str], kubernetes: Path = KUBERNETES) -> Path | None:
    """The file to write: OUTCOME_FILE, else that of Kubernetes where there is one. None: nobody asks."""
    if named := environment.get("OUTCOME_FILE"):
        return Path(named)
    return kubernetes if kubernetes.is_file() and os.access(kubernetes, os.W_OK) else None


def tell_outcome(job: str, end: End) -> None:
    """Leaves the outcome of this process's job where Kubernetes, or whoever set OUTCOME_FILE, looks for it."""
    run_id = structlog.contextvars.get_contextvars().get("run_id") or os.environ.get("RUN_ID") or ""
    write_outcome(place(os.environ), job, str(run_id), end, os.environ)


def write_outcome(file: Path | None, job: str, run_id: str, end: End, environment: Mapping[str, str]) -> None:
    """Writes the file. That it cannot be written changes nothing about how the job ended, and is only warned about."""
    if file is None:
        return
    facts: dict[str, Any] = {"job": job, "run_id": run_id, "exit_code": int(end.code), "exit_name": end.code.name}
    if end.error:
        facts |= {"error": end.error}
    elif isinstance(end.result, str):
        facts |= {"artifact": end.result}
    facts |= {"next": MEANINGS[end.code].next}
    try:
        # In place, not by renaming: in a pod the file is a mount of its own.
        file.write_bytes(as_json(redacted_values(facts, secrets_of(environment))))
    except OSError as error:
        log.warning("outcome not written", file=str(file), error=error.strerror or str(error))


def as_json(facts: dict[str, Any]) -> bytes:
    """One line of JSON of at most 4096 bytes; a long error, or whatever else is long, loses its end."""
    content = encoded(facts)
    for name in ("error", "artifact", "job", "run_id"):
        excess = len(content) - MOST_BYTES
        if excess > 0 and name in facts:
            text = str(facts[name])
            # A letter is a byte at least, so this is enough; and the ellipsis has to fit in too.
            kept = text[: max(0, len(text) - excess - len(ELLIPSIS.encode()))]
            facts = {**facts, name: kept + ELLIPSIS}
            content = encoded(facts)
    return content


def encoded(facts: dict[str, Any]) -> bytes:
    # Half a pair of UTF-16, as names of files may hold, has no bytes; as an escape it stays JSON.
    return json.dumps(facts, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
