"""An offline internet: a proxy on loopback that answers CONNECT with certificates of its own, and plays Bing and every host."""

import ssl
import threading
import time
import urllib.parse
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import trustme

INDEX_HOST = "www.bing.com"
RESULTS_A_PAGE = 7


@dataclass
class Answer:
    """What a URL answers; `then` comes at the second request and later ones.

    `drip`: seconds between bytes. `announced`: the Content-Length, where it is not that of the body. `endless`: the body over
    and over, until the client has enough.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    then: "Answer | None" = None
    drip: float = 0
    announced: int | str | None = None
    endless: bool = False


@dataclass
class Web:
    """What the hosts hold, what Bing has found, and which requests came when. `most_at_once`: requests to a host.

    `index`: what Bing answers in place of its index; only at first, when it has a `then`. `indexes`: the same for single
    queries. `agents`: as whom clients introduced themselves to the hosts of images.
    `private`: names that resolve to private addresses, which the proxy refuses as an egress proxy does. `latency`: seconds
    before every answer.
    """

    links: Sequence[str] = ()
    answers: dict[str, Answer] = field(default_factory=dict)
    index: Answer | None = None
    indexes: dict[str, Answer] = field(default_factory=dict)
    agents: set[str] = field(default_factory=set)
    private: set[str] = field(default_factory=set)
    latency: float = 0
    requests: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    most_at_once: Counter[str] = field(default_factory=Counter)
    stopped: threading.Event = field(default_factory=threading.Event)
    proxy: str = ""
    certificate: Path = Path()

    def answer(self, url: str, agent: str) -> Answer:
        self.requests.append(url)
        self.times.append(time.monotonic())
        parts = urllib.parse.urlsplit(url)
        if parts.hostname == INDEX_HOST:
            query = urllib.parse.parse_qs(parts.query)
            page = Answer(body=self.index_page(query))
            instead = self.indexes.get(query["q"][0], self.index)
            if instead is not None and instead.then is not None and self.asked_for(INDEX_HOST) > 1:
                return page
            return instead or page
        self.agents.add(agent)
        answer = self.answers.get(url, Answer(404))
        return answer.then if answer.then is not None and self.asked(url) > 1 else answer

    def asked(self, url: str) -> int:
        return Counter(self.requests)[url]

    def asked_for(self, host: str) -> int:
        return sum(urllib.parse.urlsplit(url).hostname == host for url in self.requests)

    def index_page(self, query: dict[str, list[str]]) -> bytes:
        first = int(query["first"][0])
        found = self.links[first : first + RESULTS_A_PAGE]
        entry = '<a m="{{&quot;purl&quot;:&quot;{}&quot;,&quot;murl&quot;:&quot;{}&quot;,&quot;t&quot;:1}}">'
        return "".join(entry.format(page_of(link), link) for link in found).encode()


def page_of(link: str) -> str:
    """The page that shows an image."""
    return f"https://pages.example.com/{zlib.crc32(link.encode())}"


@contextmanager
def offline_bing(folder: Path) -> Iterator[Web]:
    """A running Web. `proxy` and `certificate` are for the variables https_proxy, http_proxy and SSL_CERT_FILE."""
    authority = trustme.CA()
    web = Web(certificate=folder / "ca.pem")
    authority.cert_pem.write_to_path(web.certificate)
    server = Server(("127.0.0.1", 0), handler(web, server_contexts(authority)))
    web.proxy = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield web
    finally:
        web.stopped.set()
        server.shutdown()
        thread.join()
        server.server_close()


class Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 256

    def handle_error(self, request: object, client_address: object) -> None:
        """Says nothing: clients that hang up, or are killed, are what some tests are about."""


def server_contexts(authority: trustme.CA) -> Callable[[str], ssl.SSLContext]:
    @cache
    def context(host: str) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(host).configure_cert(made)
        return made

    return context


def handler(web: Web, context_for: Callable[[str], ssl.SSLContext]) -> type[BaseHTTPRequestHandler]:
    now: Counter[str] = Counter()
    lock = threading.Lock()

    @contextmanager
    def under_way(host: str) -> Iterator[None]:
        with lock:
            now[host] += 1
            web.most_at_once[host] = max(web.most_at_once[host], now[host])
        yield
        with lock:
            now[host] -= 1

    class Proxy(BaseHTTPRequestHandler):
        timeout = 30
        host = ""

        def do_CONNECT(self) -> None:
            self.host = self.path.rpartition(":")[0]
            if self.host in web.private:
                self.send_response(403)
                self.end_headers()
                return
            plain = self.rfile, self.wfile
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            with context_for(self.host).wrap_socket(self.connection, server_side=True) as secured:
                self.rfile, self.wfile = secured.makefile("rb"), secured.makefile("wb", buffering=0)
                with self.rfile, self.wfile:
                    self.handle_one_request()
            self.rfile, self.wfile = plain  # the caller flushes and closes them
            self.close_connection = True

        def do_GET(self) -> None:
            url = f"https://{self.host}{self.path}" if self.host else self.path
            answer = web.answer(url, self.headers.get("User-Agent", ""))
            with under_way(urllib.parse.urlsplit(url).hostname or ""):
                web.stopped.wait(web.latency)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if not answer.endless:
                self.send_header(
                    "Content-Length", str(len(answer.body) if answer.announced is None else answer.announced)
                )
            self.end_headers()
            with suppress(OSError):  # the client has had enough, which is what some tests are about
                self.send_body(answer)

        def send_body(self, answer: Answer) -> None:
            while answer.endless and not web.stopped.is_set():
                self.wfile.write(answer.body)
            if not answer.drip:
                self.wfile.write(answer.body)
                return
            for byte in answer.body:
                self.wfile.write(bytes([byte]))
                if web.stopped.wait(answer.drip):
                    return

        def log_message(self, *_: object) -> None:
            """Says nothing; the tests read `requests`."""

    return Proxy
