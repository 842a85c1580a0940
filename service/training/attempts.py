"""Attempts of a run: who began when and at which step, so that a run which never gets on is not started for ever."""

import os
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import structlog

from service.artifacts import layout
from service.artifacts.notes import Attempt
from service.artifacts.runs import Run
from service.exits import BadData, ServiceError
from service.storage.interface import NotFound

log = structlog.get_logger(__name__)


def _attempt_id(environment: Mapping[str, str]) -> str:
    """The pod's, where ATTEMPT_ID names it, else a new one."""
    return environment.get("ATTEMPT_ID") or uuid.uuid4().hex[:12]


def begin_attempt(run: Run, step: int, allowed: int) -> Attempt:
    """Notes that an attempt begins at this step. Raises when the last `allowed` ones began there too, and gained none."""
    fruitless = in_a_row(attempts(run), step)
    if fruitless >= allowed:
        raise ServiceError(
            f"the last {fruitless} attempts of run {run.run_id!r} all began at step {step} and committed no checkpoint "
            f"after it; see their logs for what stopped them, give them more time, or lower TRAIN_CHECKPOINT_EVERY; then "
            f"delete {layout.AttemptNotes(run.run_id).path} in {run.store.uri}, which forgets their hours too, and start again"
        )
    attempt = Attempt(attempt=_attempt_id(os.environ), step=step, started=datetime.now(UTC))
    run.store.put(layout.AttemptNote(run.run_id, attempt.name).path, attempt.to_bytes())
    structlog.contextvars.bind_contextvars(attempt_id=attempt.attempt)
    log.info("attempt begins", step=step, without_a_step_gained=fruitless)
    return attempt


def attempts(run: Run) -> list[Attempt]:
    """All that are noted, the oldest first. A note that cannot be read counts for nothing."""
    found = []
    for entry in run.store.list(f"{layout.AttemptNotes(run.run_id).path}/"):
        try:
            found.append(Attempt.from_bytes(run.store.get(entry.key), entry.key))
        except NotFound:
            continue  # deleted since the listing
        except BadData as error:
            log.warning("not the note of an attempt", reason=str(error))
    return sorted(found, key=lambda attempt: attempt.started)


def in_a_row(attempts: Sequence[Attempt], step: int) -> int:
    """How many of the last attempts, one after the other, began at this very step."""
    count = 0
    for attempt in reversed(attempts):
        if attempt.step != step:
            break
        count += 1
    return count
