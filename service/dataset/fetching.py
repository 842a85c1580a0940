"""One image from the internet: retried, bounded in time and bytes, and never from a private address."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import httpx
from tenacity import Retrying, retry_if_exception_type, wait_exponential_jitter

from service.dataset.addresses import require_public_host
from service.dataset.candidates import Candidate, Reason, Rejection
from service.dataset.transport import Deadline, GuardedTransport

ATTEMPTS = 3
REDIRECTS = 5
THREADS = 4
READ_AHEAD = 2 * THREADS
HEADERS = {
    "User-Agent": "Mozilla/5.0 (compatible; sdlora data-prep)",
    "Accept": "image/png,image/jpeg,image/webp,image/gif,image/*;q=0.5",
    # A compressed answer could unfold to any size behind the byte cap, and images do not shrink.
    "Accept-Encoding": "identity",
}
REFUSALS = {"noai", "noimageai"}

Outcome = bytes | Path | Rejection


class Transient(Rejection):
    """A failure that another attempt may not meet."""


class Fetcher:
    """Fetches images. `timeout` is in seconds for one image, all its redirects and retries included."""

    def __init__(self, timeout: float, max_bytes: int) -> None:
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._ssl_context = httpx.create_ssl_context()

    def fetch(self, url: str) -> bytes:
        """The body of `url`; raises Rejection with the reason why there is none."""
        deadline = Deadline(self._timeout)
        attempts = Retrying(
            retry=retry_if_exception_type(Transient),
            wait=wait_exponential_jitter(multiplier=0.5, max=5),
            # Waiting past the deadline would only turn the reason into a time-out.
            stop=lambda state: state.attempt_number >= ATTEMPTS or state.upcoming_sleep >= deadline.remaining(),
            reraise=True,
        )
        return attempts(self._attempt, url, deadline)

    def _attempt(self, url: str, deadline: Deadline) -> bytes:
        try:
            return self._follow(httpx.URL(url), deadline)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
            raise Rejection(Reason.BLOCKED_ADDRESS, f"no address of a public host: {error}") from error
        except httpx.TimeoutException as error:
            raise Transient(Reason.TIMEOUT, f"{self._timeout:g} s") from error
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise Transient(Reason.CONNECTION, str(error)) from error

    def _follow(self, url: httpx.URL, deadline: Deadline) -> bytes:
        for _ in range(REDIRECTS + 1):
            if url.scheme not in ("http", "https"):
                raise Rejection(Reason.BLOCKED_ADDRESS, f"scheme {url.scheme!r}")
            require_public_host(url.raw_host.decode("ascii"))
            answer = self._ask(url, deadline)
            if isinstance(answer, bytes):
                return answer
            url = answer
        raise Rejection(Reason.TOO_MANY_REDIRECTS, f"more than {REDIRECTS}")

    def _ask(self, url: httpx.URL, deadline: Deadline) -> bytes | httpx.URL:
        """The body, or where the answer redirects to."""
        # A third of the time for each operation, so that a host which hangs once can be asked again.
        timeout = httpx.Timeout(self._timeout / ATTEMPTS)
        transport = GuardedTransport(url, self._ssl_context, deadline)
        # trust_env would send credentials from a .netrc file; proxies are the transport's business.
        with (
            httpx.Client(transport=transport, headers=HEADERS, timeout=timeout, trust_env=False) as client,
            client.stream("GET", url) as response,
        ):
            if response.has_redirect_location:
                return url.join(response.headers["location"])
            check_status(response.status_code)
            check_robots(response.headers.get_list("x-robots-tag", split_commas=True))
            return self._body(response)

    def _body(self, response: httpx.Response) -> bytes:
        body = bytearray()
        announced = response.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > self._max_bytes:
            raise Rejection(Reason.TOO_LARGE_BYTES, f"{announced} bytes")
        for chunk in response.iter_raw():
            body += chunk
            if len(body) > self._max_bytes:
                raise Rejection(Reason.TOO_LARGE_BYTES, f"more than {self._max_bytes} bytes")
        return bytes(body)


def check_status(status: int) -> None:
    """Raises Rejection(http_status) for anything but 200; a 429 or 5xx is worth another attempt."""
    if status == httpx.codes.TOO_MANY_REQUESTS or status >= 500:
        raise Transient(Reason.HTTP_STATUS, str(status))
    if status != httpx.codes.OK:
        raise Rejection(Reason.HTTP_STATUS, str(status))


def check_robots(tags: Iterable[str]) -> None:
    """Raises Rejection(robots_noai) where the owner of the image forbids learning from it, for any robot."""
    if any(tag.rpartition(":")[2].strip().lower() in REFUSALS for tag in tags):
        raise Rejection(Reason.ROBOTS_NOAI)


def read_ahead(candidates: Iterable[Candidate]) -> Iterator[tuple[Candidate, Outcome]]:
    """Reads candidates on a few threads and passes them on in their order.

    At most READ_AHEAD of them are under way or waiting. Any other exception than Rejection ends the iteration.
    """
    source = iter(candidates)
    pending: deque[tuple[Candidate, Future[Outcome]]] = deque()
    executor = ThreadPoolExecutor(THREADS, thread_name_prefix="fetch")
    try:
        while True:
            for candidate in islice(source, READ_AHEAD - len(pending)):
                pending.append((candidate, executor.submit(read, candidate)))
            if not pending:
                return
            candidate, outcome = pending.popleft()
            yield candidate, outcome.result()
    finally:
        executor.shutdown(cancel_futures=True)


def read(candidate: Candidate) -> Outcome:
    """What `candidate.read` gives, or the Rejection that it raises."""
    try:
        return candidate.read()
    except Rejection as rejection:
        return rejection
