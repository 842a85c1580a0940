"""The end of a job, or a new champion, told to an address of the operator's: a CloudEvent by HTTP POST, signed.

In structured mode: what the event is about stands in the body, which the signature covers. In binary mode it would stand in
headers, and Standard Webhooks sign none of them. Whatever goes wrong here is a warning: it changes nothing about how the job
ends, and delays its end by NOTIFY_SECONDS at most.
"""

import base64
import binascii
import hashlib
import hmac
import http.client
import json
import multiprocessing
import os
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import NAMESPACE_URL, uuid4, uuid5

import structlog
from pydantic import ValidationError
from tenacity import Retrying, retry_if_exception, stop_before_delay, wait_exponential_jitter

from service import stopping
from service.exits import BadConfiguration, ExitCode
from service.outcome import End, facts_of
from service.redaction import redacted_values, secrets_of
from service.settings.notify import NotifySettings

PREFIX = "io.github.sd-lora-service."
"""Of the types of events: a domain, the other way round."""
SECRET_PREFIX = "whsec_"
SECRET_BYTES = (24, 64)
ATTEMPT_SECONDS = 4.0
"""For which the receiver may say nothing, until it is asked again."""
PAUSE = wait_exponential_jitter(multiplier=0.3, max=3, jitter=0.3)
STOPPED_SECONDS = 1.5
"""In place of NOTIFY_SECONDS, from the moment when the process is asked to stop."""
POLL_SECONDS = 0.1
PASSING = {408, 425, 429}
"""Answers that may be another one soon, as may all from 500 on."""

Event = dict[str, Any]

log = structlog.get_logger(__name__)
_store = ""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The address is the operator's own; one that somebody else names is not."""

    def redirect_request(self, *_: Any) -> None:
        return None


def prepare(store: str) -> None:
    """Remembers the store (ARTIFACTS_URI) that the events are about. Raises BadConfiguration for a secret that is none."""
    global _store
    _store = store if "://" in store else Path(store).expanduser().resolve().as_uri()
    secret_of(NotifySettings())


def notify_end(job: str, end: End) -> None:
    """Tells how this process's job ended, unless another process of the same job does."""
    if end.at_once or not _is_first():
        return
    facts = facts_of(job, end, os.environ)
    kind = {ExitCode.DONE: "done", ExitCode.STOPPED: "stopped"}.get(end.code, "failed")
    source = f"{_store}/runs/{quote(str(facts['run_id']))}"
    _tell(event_of(f"job.{kind}", source, job, facts | {"artifacts_uri": _store}), refused=end.code)


def notify_champion(model: str, key: str, entry: Mapping[str, Any]) -> None:
    """Tells of an entry in the registry, as plain values, by which the champion of a model is another one.

    Its id follows from the entry: who tells it a second time tells nothing new.
    """
    source = f"{_store}/registry/{model}"
    facts = {"model": model, "entry": key, **entry, "artifacts_uri": _store}
    facts = redacted_values(facts, secrets_of(os.environ))
    event = event_of("champion.changed", source, entry["lora"] or model, facts)
    _tell(event | {"id": str(uuid5(NAMESPACE_URL, f"{source}/{key}"))})


def event_of(kind: str, source: str, subject: str, data: Mapping[str, Any]) -> Event:
    """A CloudEvent 1.0 of this moment."""
    return {
        "specversion": "1.0",
        "id": str(uuid4()),
        "source": source,
        "type": PREFIX + kind,
        "subject": subject,
        "time": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": data,
    }


def secret_of(settings: NotifySettings) -> bytes | None:
    """What NOTIFY_SECRET_FILE holds; None without one. Raises BadConfiguration for what cannot be a secret."""
    file = settings.notify_secret_file
    if file is None:
        return None
    least, most = SECRET_BYTES
    try:
        secret = base64.b64decode(
            file.expanduser().read_text("ascii").strip().removeprefix(SECRET_PREFIX), validate=True
        )
    except OSError as error:
        raise BadConfiguration(f"NOTIFY_SECRET_FILE={file} cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, binascii.Error):
        secret = b""
    if not least <= len(secret) <= most:
        raise BadConfiguration(
            f"NOTIFY_SECRET_FILE={file} holds no secret: write {SECRET_PREFIX} and {least} to {most} bytes in base64, such as "
            f"`echo {SECRET_PREFIX}$(openssl rand -base64 32)` gives"
        )
    return secret


def signature(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """As Standard Webhooks have it, version 1: HMAC-SHA256 of id, time in seconds and body."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()


def headers_of(event: Event, body: bytes, secret: bytes | None, now: float) -> dict[str, str]:
    """Of one attempt: its id is that of all attempts, time and signature are its own."""
    headers = {
        "Content-Type": "application/cloudevents+json; charset=utf-8",
        "User-Agent": "sdlora",
        "webhook-id": event["id"],
        "webhook-timestamp": str(int(now)),
    }
    if secret is not None:
        headers["webhook-signature"] = signature(secret, event["id"], int(now), body)
    return headers


def _is_first() -> bool:
    """Whether this process speaks for its job: no worker that we started, and of a launcher's own ones the first."""
    ours = multiprocessing.parent_process() is not None
    return not ours and not ("LOCAL_RANK" in os.environ and os.environ.get("RANK", "0") != "0")


def _tell(event: Event, refused: ExitCode | None = None) -> None:
    """Sends the event where somebody wants it. `refused`: the end of a job, which may have been refused for these settings."""
    try:
        settings = NotifySettings()
        secret = secret_of(settings)
    except (ValidationError, BadConfiguration) as error:
        if refused != ExitCode.BAD_CONFIGURATION:  # else it was said already
            log.warning(
                "not notified", type=event["type"], reason="NOTIFY_ settings are refused: " + type(error).__name__
            )
        return
    if (url := settings.notify_url) is None:
        return
    seconds = min(settings.notify_seconds, STOPPED_SECONDS) if stopping.requested() else settings.notify_seconds
    body = json.dumps(event, ensure_ascii=False).encode("utf-8", "backslashreplace")

    def post() -> None:
        timeout = min(ATTEMPT_SECONDS, seconds)
        _post(url, body, headers_of(event, body, secret, time.time()), timeout)

    facts = {"type": event["type"], "host": urlsplit(url).netloc}
    reason = _within(seconds, lambda: _persistently(post, seconds))
    if reason:
        log.warning("not notified", **facts, reason=reason)
    else:
        log.info("notified", **facts)


def _post(url: str, body: bytes, headers: dict[str, str], timeout: float) -> None:
    opener = urllib.request.build_opener(_NoRedirects)
    request = urllib.request.Request(url, body, headers, method="POST")
    opener.open(request, timeout=timeout).close()


def _persistently(post: Callable[[], None], seconds: float) -> str:
    """Why it could not be posted, however often it was tried; empty when it was."""
    retrying = Retrying(retry=retry_if_exception(_passes), wait=PAUSE, stop=stop_before_delay(seconds), reraise=True)
    try:
        retrying(post)
    except urllib.error.HTTPError as error:
        error.close()
        moved = ", and redirects are not followed" if 300 <= error.code < 400 else ""
        return f"the answer is {error.code}{moved}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return " ".join(str(getattr(error, "reason", "") or error or type(error).__name__).split())
    return ""


def _passes(error: BaseException) -> bool:
    """Whether it may be otherwise at the next attempt."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        return error.code in PASSING or error.code >= 500
    return isinstance(error, OSError | http.client.HTTPException)


def _within(seconds: float, send: Callable[[], str]) -> str:
    """What `send` returns, or that it did not in time: a name may take minutes to resolve, and nothing interrupts that."""
    said: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=lambda: said.put(send()), name="notification", daemon=True).start()
    began = time.monotonic()
    deadline = began + seconds
    try:
        while (left := deadline - time.monotonic()) > 0:
            try:
                return said.get(timeout=min(left, POLL_SECONDS))
            except queue.Empty:
                if stopping.requested():
                    deadline = min(deadline, time.monotonic() + STOPPED_SECONDS)
    except KeyboardInterrupt:
        return "interrupted"
    return f"no answer within {time.monotonic() - began:.1f} s"
