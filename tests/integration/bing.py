"""An offline Bing: a proxy on loopback that answers CONNECT with certificates of its own, and plays every host."""

import ssl
import threading
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import trustme

INDEX_HOST = "www.bing.com"
RESULTS_A_PAGE = 7


@dataclass
class Answer:
    """What a URL answers; `then` comes at the second request and later ones. `drip` is seconds between bytes."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    then: "Answer | None" = None
    drip: float = 0


@dataclass
class Web:
    """What the hosts hold, what Bing has found, and which requests came."""

    links: Sequence[str] = ()
    answers: dict[str, Answer] = field(default_factory=dict)
    index: Answer | None = None
    requests: list[str] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    proxy: str = ""
    certificate: Path = Path()

    def answer(self, url: str) -> Answer:
        self.requests.append(url)
        parts = urllib.parse.urlsplit(url)
        if parts.hostname == INDEX_HOST:
            return self.index or Answer(body=self.index_page(urllib.parse.parse_qs(parts.query)))
        answer = self.answers.get(url, Answer(404))
        return answer.then if answer.then is not None and self.asked(url) > 1 else answer

    def asked(self, url: str) -> int:
        return Counter(self.requests)[url]

    def index_page(self, query: dict[str, list[str]]) -> bytes:
        first = int(query["first"][0])
        found = self.links[first : first + RESULTS_A_PAGE]
        return "".join(f'<a m="{{&quot;murl&quot;:&quot;{link}&quot;,&quot;t&quot;:1}}">' for link in found).encode()


@contextmanager
def offline_bing(folder: Path) -> Iterator[Web]:
    """A running Web. `proxy` and `certificate` are for the variables https_proxy, http_proxy and SSL_CERT_FILE."""
    authority = trustme.CA()
    web = Web(certificate=folder / "ca.pem")
    authority.cert_pem.write_to_path(web.certificate)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(web, server_contexts(authority)))
    server.daemon_threads = False
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


def server_contexts(authority: trustme.CA) -> Callable[[str], ssl.SSLContext]:
    def context(host: str) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(host).configure_cert(made)
        return made

    return context


def handler(web: Web, context_for: Callable[[str], ssl.SSLContext]) -> type[BaseHTTPRequestHandler]:
    class Proxy(BaseHTTPRequestHandler):
        timeout = 30
        host = ""

        def do_CONNECT(self) -> None:
            self.host = self.path.rpartition(":")[0]
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
            answer = web.answer(url)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.send_body(answer)

        def send_body(self, answer: Answer) -> None:
            try:
                if not answer.drip:
                    self.wfile.write(answer.body)
                for byte in answer.body if answer.drip else b"":
                    self.wfile.write(bytes([byte]))
                    if web.stopped.wait(answer.drip):
                        return
            except OSError:
                pass  # the client has had enough, which is what some tests are about

        def log_message(self, *_: object) -> None:
            """Says nothing; the tests read `requests`."""

    return Proxy
