"""One image from the internet: retried, bounded in time and bytes, and never from a private address."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from weakref import WeakValueDictionary

import aiohttp
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential_jitter
from yarl import URL

from service import stopping
from service.dataset.candidates import Reason, Rejection, Transient
from service.dataset.sources.addresses import require_public_host
from service.dataset.sources.transport import Internet, open_internet
from service.settings.data_prep import DataPrepSettings

ATTEMPTS = 3
REDIRECTS = 5
REDIRECTING = {301, 302, 303, 307, 308}
REFUSALS = {"noai", "noimageai"}
ACCEPT = {"Accept": "image/png,image/jpeg,image/webp,image/gif,image/*;q=0.5", "Accept-Encoding": "identity"}
BACKOFF = wait_exponential_jitter(multiplier=0.5, max=5)


class TryLater(Transient):
    """The host says when to come again: after `seconds`."""

    def __init__(self, reason: Reason, detail: str, seconds: float) -> None:
        super().__init__(reason, detail)
        self.seconds = seconds


class Fetcher:
    """Fetches images over `internet`; made by `open_fetcher`."""

    def __init__(self, internet: Internet, settings: DataPrepSettings) -> None:
        self._internet = internet
        self._timeout = settings.fetch_timeout
        self._max_bytes = settings.fetch_max_bytes
        self._per_host = settings.fetch_per_host
        self._honour_noai = settings.fetch_noai == "honour"
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def fetch(self, url: str) -> bytes:
        """The body of `url`; raises Rejection with the reason why there is none, Transient where that may change.

        Raises Stopped when a stop was requested while the host was busy with others.
        """
        try:
            parsed = URL(url)
        except ValueError as error:
            raise Rejection(Reason.BLOCKED_ADDRESS, f"no address of a public host: {error}") from error
        try:
            async with asyncio.timeout(self._timeout) as clock:
                return await self._attempts(clock)(self._attempt, parsed, clock)
        except TimeoutError as error:
            raise Transient(Reason.TIMEOUT, f"{self._timeout:g} s") from error

    def _attempts(self, clock: asyncio.Timeout) -> AsyncRetrying:
        return AsyncRetrying(
            retry=retry_if_exception_type(Transient),
            wait=_seconds_before_retry,
            # Waiting past the deadline would only turn the reason into a time-out.
            stop=lambda state: state.attempt_number >= ATTEMPTS or state.upcoming_sleep >= _remaining(clock),
            reraise=True,
        )

    async def _attempt(self, url: URL, clock: asyncio.Timeout) -> bytes:
        try:
            return await self._follow(url, clock)
        except aiohttp.ClientHttpProxyError as error:
            if error.status == HTTPStatus.FORBIDDEN:
                raise Rejection(Reason.BLOCKED_ADDRESS, "refused by the proxy") from error
            raise Transient(Reason.CONNECTION, f"proxy answered {error.status}") from error
        except aiohttp.ClientConnectorCertificateError as error:
            raise Rejection(Reason.CONNECTION, "certificate not valid") from error
        except TimeoutError as error:
            raise Transient(Reason.TIMEOUT, "no answer") from error
        except (aiohttp.InvalidURL, ValueError) as error:
            raise Rejection(Reason.BLOCKED_ADDRESS, "no address of a public host") from error
        except (aiohttp.ClientError, OSError) as error:
            # The type alone: a message may hold ports and other things that differ from run to run.
            raise Transient(Reason.CONNECTION, type(error).__name__) from error

    async def _follow(self, url: URL, clock: asyncio.Timeout) -> bytes:
        for _ in range(REDIRECTS + 1):
            if url.scheme not in ("http", "https"):
                raise Rejection(Reason.BLOCKED_ADDRESS, f"scheme {url.scheme!r}")
            require_public_host(url.host or "")
            async with self._turn(url.host or "", clock):
                answer = await self._ask(url)
            if isinstance(answer, bytes):
                return answer
            url = answer
        raise Rejection(Reason.TOO_MANY_REDIRECTS, f"more than {REDIRECTS}")

    @asynccontextmanager
    async def _turn(self, host: str, clock: asyncio.Timeout) -> AsyncIterator[None]:
        """One of the host's turns, which a redirect to it needs as well.

        The clock stands still until then: a host with many images must not time out on its own queue.
        """
        turn = self._turns.setdefault(host, asyncio.Semaphore(self._per_host))
        left = _remaining(clock)
        clock.reschedule(None)
        async with turn:
            stopping.check()  # there may be more in the queue than the time that is left is enough for
            clock.reschedule(asyncio.get_running_loop().time() + left)
            yield

    async def _ask(self, url: URL) -> bytes | URL:
        """The body, or where the answer redirects to."""
        async with self._internet.get(url) as response:
            if response.status in REDIRECTING and "Location" in response.headers:
                return url.join(URL(response.headers["Location"]))
            check_status(response.status, response.headers.get("Retry-After", ""))
            if self._honour_noai:
                check_robots(response.headers.getall("X-Robots-Tag", ()))
            try:
                return await self._body(response)
            except BaseException:
                _abandon(response)
                raise

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        if (response.content_length or 0) > self._max_bytes:
            raise Rejection(Reason.TOO_LARGE_BYTES, f"more than {self._max_bytes} bytes")
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > self._max_bytes:
                raise Rejection(Reason.TOO_LARGE_BYTES, f"more than {self._max_bytes} bytes")
        return bytes(body)


@asynccontextmanager
async def open_fetcher(settings: DataPrepSettings) -> AsyncIterator[Fetcher]:
    """A fetcher for many images."""
    headers = {**ACCEPT, "User-Agent": settings.fetch_user_agent}
    # A third of the time for each operation, so that a host which hangs once can be asked again.
    async with open_internet(headers, settings.fetch_timeout / ATTEMPTS, settings.fetch_concurrency) as internet:
        yield Fetcher(internet, settings)


def _abandon(response: aiohttp.ClientResponse) -> None:
    """Drops a connection at once. Closed under TLS, it waits for a goodbye, which a host that drips never says."""
    if response.connection is not None and response.connection.transport is not None:
        response.connection.transport.abort()


def _remaining(clock: asyncio.Timeout) -> float:
    """Seconds until the clock, which is running, will have run down."""
    return (clock.when() or 0.0) - asyncio.get_running_loop().time()


def _seconds_before_retry(state: RetryCallState) -> float:
    """Seconds until the next attempt: what the host asked for, and never less than the usual backoff."""
    failure = state.outcome.exception() if state.outcome else None
    asked_for = failure.seconds if isinstance(failure, TryLater) else 0.0
    return max(asked_for, BACKOFF(state))


def check_status(status: int, retry_after: str = "") -> None:
    """Raises Rejection(http_status) for anything but 200; a 408, 429 or 5xx is worth another attempt."""
    if status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS) or status >= 500:
        raise TryLater(Reason.HTTP_STATUS, str(status), seconds_until(retry_after))
    if status != HTTPStatus.OK:
        raise Rejection(Reason.HTTP_STATUS, str(status))


def seconds_until(retry_after: str) -> float:
    """A Retry-After header, seconds or a date, in seconds from now; 0 for none, one in the past, or nonsense."""
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        moment = parsedate_to_datetime(retry_after)
        return max(0.0, (moment - moment.now(moment.tzinfo)).total_seconds())
    except (TypeError, ValueError):
        return 0.0


def check_robots(headers: Iterable[str]) -> None:
    """Raises Rejection(robots_noai) where the owner of the image forbids learning from it, for any robot."""
    tags = (tag for header in headers for tag in header.split(","))
    if any(tag.rpartition(":")[2].strip().lower() in REFUSALS for tag in tags):
        raise Rejection(Reason.ROBOTS_NOAI)
