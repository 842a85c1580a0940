"""An HTTP proxy on loopback that plays every host: a picture of its own for each number, after a fixed latency.

Run by itself: `python -m tests.benchmarks.loopback PORT LATENCY`.
"""

import asyncio
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np

from tests.servers import free_port, wait_until_it_answers

SIDE = 32


def picture(number: int) -> bytes:
    """A PNG of 32×32 pixels, unlike that of any other number."""
    coarse = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    pixels = coarse.repeat(SIDE // 8, 0).repeat(SIDE // 8, 1).reshape(SIDE, SIDE * 3)
    rows = np.concatenate([np.zeros((SIDE, 1), np.uint8), pixels], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def url(number: int) -> str:
    """Hosts as a search finds them: many, each with some images."""
    return f"http://images{number % 97}.example.com/pixel/{number}.png"


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, latency: float) -> None:
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            request = await reader.readuntil(b"\r\n\r\n")
            line, _, head = request.partition(b"\r\n")
            number = int(line.split()[1].rpartition(b"/")[2].partition(b".")[0])
            await asyncio.sleep(latency)
            body = picture(number)
            close = b"connection: close" in head.lower()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()
            if close:
                break
    writer.close()


async def serve(port: int, latency: float) -> None:
    server = await asyncio.start_server(lambda r, w: answer(r, w, latency), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


@contextmanager
def loopback(latency: float) -> Iterator[str]:
    """A running proxy; gives its URL and sets it as http_proxy of this process."""
    port = free_port()
    command = [sys.executable, "-m", "tests.benchmarks.loopback", str(port), str(latency)]
    process = subprocess.Popen(command)
    try:
        wait_until_it_answers(process, port)
        proxy = f"http://127.0.0.1:{port}"
        os.environ["http_proxy"] = proxy
        os.environ.pop("no_proxy", None)
        os.environ.pop("NO_PROXY", None)
        yield proxy
    finally:
        process.terminate()
        process.wait(10)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2])))
