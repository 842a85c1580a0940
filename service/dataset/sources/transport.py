"""Sessions with the internet that reach public hosts only, however a URL, a redirect or a name tries to get elsewhere."""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from service.dataset.candidates import Reason, Rejection
from service.dataset.sources.addresses import is_public, public_addresses

KEEP_ALIVE = 2.0
"""Seconds: results of a search name a new host almost every time, and idle connections would use up the descriptors."""
GOODBYE = 0.25
"""Seconds, as aiohttp's own advice for connections under TLS."""


class _PublicResolver(AbstractResolver):
    """Resolves names to public addresses; raises Rejection(dns) and Rejection(blocked_address)."""

    def __init__(self, threads: Executor) -> None:
        self._threads = threads

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002 - either will do
    ) -> list[ResolveResult]:
        found = await asyncio.get_running_loop().run_in_executor(self._threads, public_addresses, host, port)
        return [
            ResolveResult(hostname=host, host=address, port=port, family=_family_of(address), proto=0, flags=0)
            for address in found
        ]

    async def close(self) -> None:
        """The threads are the owner's."""


def _family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def public_socket(address_info: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
    """A socket for one connection. The last word on where it goes, by the very address that it is about to connect to."""
    family, kind, protocol, _, address = address_info
    if not is_public(ipaddress.ip_address(str(address[0]))):
        raise Rejection(Reason.BLOCKED_ADDRESS, str(address[0]))
    return socket.socket(family, kind, protocol)


@dataclass(frozen=True)
class Internet:
    """One session for hosts that are reached directly, one for those behind the operator's proxy, which resolves names."""

    direct: aiohttp.ClientSession
    proxied: aiohttp.ClientSession

    def get(self, url: URL) -> "aiohttp.client._RequestContextManager":
        """A request for `url` itself: redirects are the caller's, because each of them has to be checked."""
        proxy = _proxy_for(url)
        if proxy is None:
            return self.direct.get(url, allow_redirects=False)
        return self.proxied.get(url, allow_redirects=False, proxy=proxy)


@asynccontextmanager
async def open_internet(headers: dict[str, str], operation_timeout: float, lookups: int) -> AsyncIterator[Internet]:
    """Sessions for many requests. `operation_timeout`: seconds to connect, and between two pieces of a body.

    `lookups`: names resolved at once; the system's resolver blocks a thread for each.
    """
    timeout = aiohttp.ClientTimeout(sock_connect=operation_timeout, sock_read=operation_timeout)
    trusted = ssl.create_default_context()

    def session(**connecting: object) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=trusted, keepalive_timeout=KEEP_ALIVE, **connecting),  # type: ignore[arg-type]
            headers=headers,
            timeout=timeout,
            # A body that unfolds could be of any size behind the byte cap.
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    with ThreadPoolExecutor(lookups, thread_name_prefix="lookup") as threads:
        async with (
            session(resolver=_PublicResolver(threads), socket_factory=public_socket) as direct,
            session() as proxied,
        ):
            yield Internet(direct, proxied)
        # Connections that were given up take a moment to say goodbye; closed before, they would be leaked.
        await asyncio.sleep(GOODBYE)


def _proxy_for(url: URL) -> str | None:
    """The proxy that http_proxy, https_proxy, all_proxy and no_proxy name for this URL."""
    proxies = getproxies()
    address = proxies.get(url.scheme) or proxies.get("all")
    if not address or proxy_bypass(url.host or ""):
        return None
    return address if "://" in address else f"http://{address}"
