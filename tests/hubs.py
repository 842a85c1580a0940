"""A model hub on loopback, as far as the library of the hub asks one: models at a commit, with hashes, and faults on demand."""

import hashlib
import io
import json
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from tests.servers import answering

REVISION = "0123456789abcdef" * 2 + "01234567"
LARGE = (".safetensors", ".bin", ".msgpack")
"""What the hub keeps in Git LFS."""
Fault = Callable[[BaseHTTPRequestHandler], None]


def files_of(folder: Path) -> dict[str, bytes]:
    """A model's files by their paths, as a hub has them."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@dataclass
class Hub:
    """A running hub. `faults`: what happens instead, once each, to a GET of a path that ends so; `changed`: what is sent
    in the place of a file's content, download by download.
    """

    models: Mapping[str, dict[str, bytes]]
    faults: list[tuple[str, Fault]] = field(default_factory=list)
    changed: dict[str, list[bytes]] = field(default_factory=dict)
    requests: list[tuple[str, str, int]] = field(default_factory=list)
    address: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Method, path and first byte of each request are kept."""
        path = handler.path.partition("?")[0]
        first = int((handler.headers["Range"] or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.requests.append((handler.command, path, first))
        due = [pair for pair in self.faults if handler.command == "GET" and path.endswith(pair[0])]
        for fault in due[:1]:
            self.faults.remove(fault)
            fault[1](handler)
            return
        for name, files in self.models.items():
            if path == f"/api/models/{name}/revision/{REVISION}":
                self.send(handler, json.dumps(self._info(name, files)).encode(), "info")
                return
            file = path.removeprefix(f"/{name}/resolve/{REVISION}/")
            if file in files:
                changed = self.changed.get(file, []) if handler.command == "GET" else []
                self.send(
                    handler, changed.pop(0) if changed else files[file], hashlib.sha256(files[file]).hexdigest(), first
                )
                return
        refusing(404, "RepoNotFound")(handler)

    def asked(self, ending: str, method: str = "GET") -> list[int]:
        """First bytes of the requests for paths that end so."""
        return [first for command, path, first in self.requests if command == method and path.endswith(ending)]

    def _info(self, name: str, files: Mapping[str, bytes]) -> dict[str, Any]:
        siblings = []
        for path, content in files.items():
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            lfs = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
            large = {"lfs": lfs} if path.endswith(LARGE) else {}
            siblings.append({"rfilename": path, "size": len(content), "blobId": blob, **large})
        return {"id": name, "sha": REVISION, "siblings": siblings}

    @staticmethod
    def send(handler: BaseHTTPRequestHandler, content: bytes, etag: str, first: int = 0) -> None:
        handler.send_response(206 if first else 200)
        for name, value in {
            "Content-Length": str(len(content) - first),
            "Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}",
            "ETag": f'"{etag}"',
            "X-Repo-Commit": REVISION,
            "Accept-Ranges": "bytes",
        }.items():
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command == "GET":
            handler.wfile.write(content[first:])


def refusing(status: int, code: str = "") -> Fault:
    """Answers with that status, and the hub's own word for why."""

    def refuse(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        if code:
            handler.send_header("X-Error-Code", code)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return refuse


def resetting(handler: BaseHTTPRequestHandler) -> None:
    """Cuts the connection before there is an answer."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.wfile = io.BytesIO()  # type: ignore[assignment]


def cutting(content: bytes, at: int) -> Fault:
    """Sends a file up to there, and closes the connection."""

    def cut(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[:at])
        handler.close_connection = True

    return cut


def redirecting(to: str, seen: list[str | None]) -> Fault:
    """Names another server for the file, as the hub does for large ones; keeps the credentials of who asked."""

    def redirect(handler: BaseHTTPRequestHandler) -> None:
        seen.append(handler.headers["Authorization"])
        handler.send_response(302)
        handler.send_header("Location", to)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return redirect


@contextmanager
def hub_with(models: Mapping[str, dict[str, bytes]]) -> Iterator[Hub]:
    hub = Hub(models)
    with answering(hub.answer) as port:
        hub.address = f"http://127.0.0.1:{port}"
        yield hub
