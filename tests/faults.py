"""A proxy on loopback between a client and a real S3 server, which does to the traffic what networks and servers do to it."""

import base64
import hashlib
import http.client
import socket
import struct
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from tests.servers import S3Server

STALL_SECONDS = 1.0
"""How long nothing comes. The clients of the tests wait half of it."""


class Fault(Enum):
    """What happens to one request. `BEFORE`: the server never sees it; `AFTER`: it has done what it was asked."""

    RESET_BEFORE = "connection reset before the server saw the request"
    RESET_AFTER = "connection reset in place of the answer"
    ERROR_BEFORE = "500 in place of the server"
    ERROR_AFTER = "500 in place of the answer"
    UNAVAILABLE_BEFORE = "503 in place of the server"
    UNAVAILABLE_AFTER = "503 in place of the answer"
    SLOW_DOWN = "503 SlowDown"
    TRUNCATED_REQUEST = "half of the body reaches the server"
    TRUNCATED_ANSWER = "half of the answer's body reaches the client"
    STALL_BEFORE = "nothing for a while, and the server never sees the request"
    STALL_AFTER = "nothing for a while in place of the answer"
    STALL_INSIDE = "half of the answer's body, then nothing for a while"
    FORBIDDEN = "403"
    CONFLICT = "409 of a conditional write"
    EXPIRED = "400 ExpiredToken"
    CORRUPT_REQUEST = "a byte of the body changes on the way to the server"
    CORRUPT_ANSWER = "a byte of the answer's body changes on the way to the client"


ANSWERS = {
    Fault.ERROR_BEFORE: (500, "InternalError"),
    Fault.ERROR_AFTER: (500, "InternalError"),
    Fault.UNAVAILABLE_BEFORE: (503, "ServiceUnavailable"),
    Fault.UNAVAILABLE_AFTER: (503, "ServiceUnavailable"),
    Fault.SLOW_DOWN: (503, "SlowDown"),
    Fault.FORBIDDEN: (403, "AccessDenied"),
    Fault.CONFLICT: (409, "ConditionalRequestConflict"),
    Fault.EXPIRED: (400, "ExpiredToken"),
}
NEVER_ARRIVES = {
    Fault.RESET_BEFORE, Fault.ERROR_BEFORE, Fault.UNAVAILABLE_BEFORE, Fault.SLOW_DOWN, Fault.STALL_BEFORE, Fault.FORBIDDEN,
    Fault.CONFLICT, Fault.EXPIRED,
}  # fmt: skip
LASTING = {Fault.FORBIDDEN, Fault.EXPIRED}
"""Not of the kind that goes away when one tries again."""


class Request(NamedTuple):
    """What a client asked for: method, path with bucket and key, names in the query, whether on condition, and how.

    headers: by their names in lower case; md5: of the body, as Content-MD5 has it.
    """

    method: str
    path: str
    query: frozenset[str]
    conditional: bool
    token: str
    range: str
    headers: Mapping[str, str]
    md5: str


Matches = Callable[[Request], bool]
Headers = list[tuple[str, str]]


def anything(_: Request) -> bool:
    return True


def suits(fault: Fault, request: Request) -> bool:
    """Whether the fault can happen to such a request at all. What a listing says is under no checksum but that of TLS."""
    of_an_object = request.path.count("/") >= 2 and not request.query - {"partNumber", "uploadId"}
    if fault is Fault.CONFLICT:
        return request.conditional
    if fault in (Fault.CORRUPT_REQUEST, Fault.TRUNCATED_REQUEST):
        return request.method == "PUT" and of_an_object
    if fault is Fault.CORRUPT_ANSWER:
        return request.method == "GET" and of_an_object
    if fault in (Fault.TRUNCATED_ANSWER, Fault.STALL_INSIDE):
        return request.method == "GET"
    return True


@dataclass
class Faults:
    """Which fault comes next. `requests` are all that were asked for; `happened` counts the faults that came to pass."""

    server: S3Server
    requests: list[Request] = field(default_factory=list)
    happened: Counter[Fault] = field(default_factory=Counter)
    planned: deque[tuple[Fault, Matches, int]] = field(default_factory=deque)
    refuses: "Callable[[Request], tuple[int, str, str] | None] | None" = None
    """What a server of this kind answers to some requests for good: status, code and message; without a code, a web page."""
    edits: "Callable[[Request, Headers, bytes], tuple[Headers, bytes]] | None" = None
    """What a server of this kind makes of the headers and the body of an answer, for good."""
    no_expect: bool = False
    """Whether `Expect: 100-continue` is answered with 417."""
    expected: int = 0
    """How often it was asked for."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def plan(self, fault: Fault, matches: Matches = anything, skip: int = 0) -> None:
        """The fault happens to the first request, after `skip` others, of those that it can happen to."""
        with self.lock:
            self.planned.append((fault, matches, skip))

    def clear(self) -> None:
        with self.lock:
            self.planned.clear()

    def next_for(self, request: Request) -> Fault | None:
        with self.lock:
            self.requests.append(request)
            for number, (fault, matches, skip) in enumerate(self.planned):
                if suits(fault, request) and matches(request):
                    if skip:
                        self.planned[number] = (fault, matches, skip - 1)
                        return None
                    del self.planned[number]
                    self.happened[fault] += 1
                    return fault
        return None


@contextmanager
def faulty(server: S3Server) -> Iterator[Faults]:
    """The proxy before a running server; `faults.server` is what a client is to use."""
    host, port = urlsplit(server.environment["AWS_ENDPOINT_URL"]).netloc.split(":")
    faults: Faults

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def relay(self) -> None:
            # Read whole before anything happens to it, so that a fault meets a request and not the middle of one.
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            address = urlsplit(self.path)
            token, part = self.headers.get("X-Amz-Security-Token", ""), self.headers.get("Range", "")
            names = frozenset(parse_qs(address.query, keep_blank_values=True))
            headers = {name.lower(): value for name, value in self.headers.items()}
            md5 = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
            conditional = "if-none-match" in headers
            request = Request(self.command, address.path, names, conditional, token, part, headers, md5)
            fault = faults.next_for(request)
            refusal = faults.refuses(request) if faults.refuses else None
            try:
                if refusal:
                    self.refuse(*refusal)
                else:
                    self.suffer(request, fault, body)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the client has given up

        def handle_expect_100(self) -> bool:
            faults.expected += 1
            if not faults.no_expect:
                return super().handle_expect_100()
            # What was to be sent stays away, so that the next request begins here.
            self.send_response_only(417)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return False

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = relay  # noqa: N815

        def refuse(self, status: int, code: str, message: str) -> None:
            if not code:  # a proxy's page
                self.answer(status, [("Content-Type", "text/html")], message.encode())
                return
            content = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
            self.answer(status, [("Content-Type", "application/xml")], content)

        def suffer(self, request: Request, fault: Fault | None, body: bytes) -> None:
            if fault is Fault.TRUNCATED_REQUEST:
                self.forward_half(body)
                self.reset()
                return
            if fault is Fault.CORRUPT_REQUEST:
                body = flipped(body)
            status, headers, content = (0, [], b"") if fault in NEVER_ARRIVES else self.forward(body)
            if faults.edits:
                headers, content = faults.edits(request, headers, content)
            if fault in ANSWERS:
                self.refuse(*ANSWERS[fault], "as told")
            elif fault in (Fault.STALL_BEFORE, Fault.STALL_AFTER):
                stopping.wait(STALL_SECONDS)
                self.reset()
            elif fault in (Fault.RESET_BEFORE, Fault.RESET_AFTER):
                self.reset()
            elif fault in (Fault.TRUNCATED_ANSWER, Fault.STALL_INSIDE):
                self.answer(status, headers, content, len(content) // 2)
                if fault is Fault.STALL_INSIDE:
                    stopping.wait(STALL_SECONDS)
                self.close_connection = True  # not a reset, which would take back what was sent
            else:
                self.answer(status, headers, flipped(content) if fault is Fault.CORRUPT_ANSWER else content)

        def setup(self) -> None:
            super().setup()
            # One connection for each of the client's: opened anew by itself when the server closes it.
            self.upstream = http.client.HTTPConnection(host, int(port), timeout=60)

        def forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            headers = {name: value for name, value in self.headers.items() if name not in ("Expect", "Connection")}
            self.upstream.request(self.command, self.path, body or None, headers)
            response = self.upstream.getresponse()
            return response.status, response.getheaders(), response.read()

        def forward_half(self, body: bytes) -> None:
            with socket.create_connection((host, int(port)), 60) as upstream:
                head = f"{self.command} {self.path} HTTP/1.1\r\n" + "".join(
                    f"{name}: {value}\r\n" for name, value in self.headers.items() if name != "Expect"
                )
                upstream.sendall(f"{head}\r\n".encode() + body[: len(body) // 2])
                upstream.shutdown(socket.SHUT_WR)
                while upstream.recv(65536):
                    pass  # until the server has done with it whatever it does

        def answer(self, status: int, headers: list[tuple[str, str]], content: bytes, sent: int | None = None) -> None:
            self.send_response_only(status)
            lengths = {"content-length", "transfer-encoding", "connection"}
            told = [value for name, value in headers if name.lower() == "content-length"]
            for name, value in headers:
                if name.lower() not in lengths:
                    self.send_header(name, value)
            # An answer to HEAD tells the length of a body that does not come.
            self.send_header("Content-Length", told[0] if self.command == "HEAD" and told else str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[:sent])
                self.wfile.flush()

        def reset(self) -> None:
            """Closes the connection so that the client sees a reset, not an end."""
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()

        def finish(self) -> None:
            self.upstream.close()
            try:
                super().finish()
            except OSError:
                return  # it was reset

        def log_message(self, *_: object) -> None:
            """Says nothing; what the client makes of it is what the tests read."""

    class Listener(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def shutdown_request(self, request: object) -> None:
            try:
                super().shutdown_request(request)  # type: ignore[arg-type]
            except OSError:
                return  # it was reset

    stopping = threading.Event()
    listener = Listener(("127.0.0.1", 0), Proxy)
    endpoint = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{listener.server_port}"}
    faults = Faults(replace(server, environment=server.environment | endpoint))
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield faults
    finally:
        stopping.set()
        listener.shutdown()
        thread.join()
        listener.server_close()


def flipped(content: bytes) -> bytes:
    """The content with one bit of its middle byte changed; nothing stays nothing."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :] if content else content
