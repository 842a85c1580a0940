"""Data preparation among the worst of the web: every candidate ends with its reason, and every good image is there."""

import csv
import json
import random
import re
import socket
import struct
import sys
import urllib.parse
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image, ImageCms

from service.dataset.candidates import Reason
from tests.integration.bing import Answer, Web, page_of
from tests.pictures import encoded, png, sprite

pytestmark = pytest.mark.filterwarnings(r"ignore:unclosed file .*imagefolder/.*:ResourceWarning")

GOOD = 200
HOST = "https://hostile.example.org"
CAP = 200_000
QUERY, EMPTY, MALFORMED = "swords & shields", "a page without anything", "a page out of order"
PRIVATE = {
    "rebinds.example.com": ["10.0.0.7"],
    "six.example.com": ["::ffff:127.0.0.1"],
    "mixed.example.com": ["8.8.8.8", "192.168.0.1"],
}
"""Names that the system resolves to private addresses, as a hostile name server would have it."""
connected: list[tuple[Any, ...]] = []
watching = False


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    if watching and event == "socket.connect":
        connected.append(arguments[1])


sys.addaudithook(watch)


@pytest.fixture
def connections() -> Iterator[list[tuple[Any, ...]]]:
    """The addresses of all connections that this process opens during the test, as the socket has them."""
    global watching
    connected.clear()
    watching = True
    yield connected
    watching = False


@pytest.fixture
def name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's resolver, which also knows the names of PRIVATE."""
    ask = socket.getaddrinfo

    def answer(host: str, port: int, *arguments: Any, **options: Any) -> Any:
        if host not in PRIVATE:
            return ask(host, port, *arguments, **options)
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in PRIVATE[host]
        ]

    monkeypatch.setattr(socket, "getaddrinfo", answer)


def photo(seed: int) -> Image.Image:
    """A picture with soft gradients, which lossy formats change a little everywhere."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((96, 96), Image.Resampling.BICUBIC)


def bomb() -> bytes:
    """A PNG of a few hundred bytes that says it has 400 million pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def with_alpha(seed: int) -> bytes:
    image = sprite(seed, (64, 64)).convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    return encoded(image, "PNG", transparency=bytes([0] + [255] * 15))


def rotated(seed: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(sprite(seed, (64, 48)), "JPEG", exif=exif, quality=95)


def animation(seed: int, file_format: str) -> bytes:
    return encoded(
        sprite(seed), file_format, save_all=True, append_images=[sprite(seed + 1), sprite(seed + 2)], duration=9
    )


def deep(seed: int) -> bytes:
    shades = np.random.default_rng(seed).integers(0, 65536, (8, 8), dtype=np.uint16).repeat(6, 0).repeat(6, 1)
    return encoded(Image.fromarray(shades), "PNG")


def strange_but_good() -> dict[str, Answer]:
    """Oddities that must not cost an image."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    broken = b"Exif\0\0MM\0*\0\0\xff\xff" + b"\xff" * 40
    return {
        "busy.png": Answer(429, headers={"Retry-After": "2"}, then=Answer(body=png(1001))),
        "down-once.png": Answer(500, then=Answer(body=png(1002))),
        "moved.png": Answer(302, headers={"Location": "/target.png"}),
        "cmyk.jpg": Answer(body=encoded(photo(1003).convert("CMYK"), "JPEG", quality=95)),
        "deep.png": Answer(body=deep(1004)),
        "palette.png": Answer(body=with_alpha(1005)),
        "animated.gif": Answer(body=animation(1006, "GIF")),
        "animated.webp": Answer(body=animation(1010, "WEBP")),
        "rotated.jpg": Answer(body=rotated(1014)),
        "broken-exif.jpg": Answer(body=encoded(photo(1015), "JPEG", exif=broken, quality=95)),
        "profile.png": Answer(body=encoded(sprite(1016), "PNG", icc_profile=srgb)),
        "drops-once.png": Answer(body=png(1017)[:50], announced=5000, then=Answer(body=png(1017))),
        "wrong-name.gif": Answer(body=png(1018)),
        "out-of-order.png": Answer(body=png(1019)),
    }


def malformed_index() -> bytes:
    """Cut off, in no encoding, with entries that are no JSON and links that are none; and one that is good."""

    def entry(facts: str) -> str:
        return f'<a m="{facts}">'.replace("'", "&quot;")

    link = f"{HOST}/out-of-order.png"
    return (
        b"\xff\xfe\x00<a>"
        + "".join(
            [
                entry("{'murl':'no address at all','purl':7}"),
                entry("{'murl':''}"),
                entry("{'murl':null,'purl':'https://pages.example.com/1'}"),
                entry("['murl']"),
                entry("{'murl':'http://','purl'"),
                entry(f"{{'purl':'{page_of(link)}','murl':'{link}','t':1}}"),
                '<a m="{&quot;murl&quot;:&quot;https://hostile.example.org/cut-off',
            ]
        ).encode()
    )


def bad(secret: Path) -> dict[str, tuple[Answer | None, str]]:
    """URL → what it answers, None for nothing of its own, and the reason that it must end with."""

    def redirect(to: str) -> Answer:
        return Answer(302, headers={"Location": to})

    same = photo(2000).resize((192, 192), Image.Resampling.LANCZOS)
    answers: dict[str, tuple[Answer | None, str]] = {
        "gone.png": (None, "http_status"),
        "forgotten.png": (Answer(410), "http_status"),
        "always-busy.png": (Answer(429, headers={"Retry-After": "900"}), "http_status"),
        "down.png": (Answer(503), "http_status"),
        "to-loopback.png": (redirect("http://127.0.0.1:8080/admin"), "blocked_address"),
        "to-link-local.png": (redirect("http://169.254.169.254/latest/meta-data"), "blocked_address"),
        "to-file.png": (redirect(secret.as_uri()), "blocked_address"),
        "loop.png": (redirect("/loop.png"), "too_many_redirects"),
        "to-private-name.png": (redirect("https://intranet.example.com/a.png"), "blocked_address"),
        "page.jpg": (Answer(body=b"<html>gone</html>", headers={"Content-Type": "image/jpeg"}), "not_image"),
        "drawing.svg": (Answer(body=b'<svg xmlns="http://www.w3.org/2000/svg"/>'), "not_image"),
        "cut.jpg": (Answer(body=encoded(photo(2001), "JPEG")[:-400]), "truncated"),
        "bomb.png": (Answer(body=bomb()), "decompression_bomb"),
        "dot.png": (Answer(body=png(2002, (1, 1))), "too_small"),
        "long.png": (Answer(body=encoded(Image.new("RGB", (20_000, 10), "red"), "PNG")), "too_small"),
        "strip.png": (Answer(body=png(2003, (400, 40))), "aspect_ratio"),
        "blank.png": (Answer(body=encoded(Image.new("RGB", (64, 64), "red"), "PNG")), "low_entropy"),
        "scan.tiff": (Answer(body=encoded(photo(2004), "TIFF")), "format_not_allowed"),
        "drip.png": (Answer(body=png(2005), drip=0.4), "timeout"),
        "endless.png": (Answer(body=b"\x89PNG\r\n\x1a\n" + b"x" * 65536, endless=True), "too_large_bytes"),
        "large.png": (Answer(body=b"x" * (CAP + 1)), "too_large_bytes"),
        "short.png": (Answer(body=png(2006)[:50], announced=5000), "connection"),
        "longer.png": (Answer(body=png(2008), announced=60), "connection"),
        "no-length.png": (Answer(body=png(2009), announced="many"), "connection"),
        "noai.png": (Answer(body=png(2007), headers={"X-Robots-Tag": "noindex, noai"}), "robots_noai"),
        "nothing.png": (Answer(), "not_image"),
        # One picture five ways; the largest of them, the lossless one, is good.
        "same.bmp": (Answer(body=encoded(same, "BMP")), "dup_exact"),
        "same.jpg": (Answer(body=encoded(same, "JPEG", quality=60)), "dup_near"),
        "same.webp": (Answer(body=encoded(same, "WEBP", quality=50)), "dup_near"),
        "same-small.png": (Answer(body=encoded(same.resize((96, 96)), "PNG")), "dup_near"),
        "same.gif": (Answer(body=encoded(same, "GIF")), "dup_near"),
    }
    elsewhere = {
        secret.as_uri(): "blocked_address",
        "http://2130706433/a.png": "blocked_address",
        "http://0x7f.1/a.png": "blocked_address",
        "http://[::ffff:169.254.169.254]/a.png": "blocked_address",
        "http://[::1]:8080/a.png": "blocked_address",
        "https://intranet.example.com/a.png": "blocked_address",
        "http://localhost/a.png": "blocked_address",
        "ftp://example.com/a.png": "blocked_address",
        "http://[broken/a.png": "blocked_address",
        "data:image/png;base64,AAAA": "blocked_address",
        "http://%31%32%37.0.0.1/a.png": "blocked_address",
        "no%20address%20at%20all": "blocked_address",
        "": "blocked_address",
        "http://": "blocked_address",
        **{f"https://{name}/a.png": "blocked_address" for name in PRIVATE},
    }
    return {f"{HOST}/{name}": answer for name, answer in answers.items()} | {
        url: (None, why) for url, why in elsewhere.items()
    }


@pytest.mark.usefixtures("name_server")
def test_every_candidate_ends_with_its_reason_and_every_good_image_is_there(
    web: Web, prepare: Any, tmp_path: Path, connections: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(77))
    good = [f"https://images{seed % 40}.example.com/{seed}.png" for seed in range(GOOD)]
    strange = {f"{HOST}/{name}": answer for name, answer in strange_but_good().items()}
    hostile = bad(secret)
    best = f"{HOST}/same.png"
    web.answers = {url: Answer(body=png(seed)) for seed, url in enumerate(good)} | strange
    web.answers |= {url: answer for url, (answer, _) in hostile.items() if answer is not None}
    web.answers[f"{HOST}/target.png"] = Answer(body=png(1099))
    web.answers[best] = Answer(body=encoded(photo(2000).resize((192, 192), Image.Resampling.LANCZOS), "PNG"))
    web.private = {"intranet.example.com"}
    out_of_order = {"no%20address%20at%20all", "", "http://", f"{HOST}/out-of-order.png"}
    web.indexes = {EMPTY: Answer(), MALFORMED: Answer(body=malformed_index())}
    # The operator's proxy is not for everybody: for these names the job itself has to look where they lead.
    monkeypatch.setenv("no_proxy", ",".join(PRIVATE))
    links = [*good, *strange, *hostile]
    random.Random(0).shuffle(links)
    web.links = [best, *(link for link in links if link not in out_of_order)]

    path = prepare(
        source="bing",
        query=[QUERY, EMPTY, MALFORMED],
        limit=400,
        fetch_timeout=5,
        fetch_max_bytes=CAP,
        fetch_concurrency=16,
        fetch_user_agent="a collector that says so",
    )

    artifact = tmp_path / "artifacts" / path
    lines = (artifact / "provenance" / "candidates.jsonl").read_text().splitlines()
    entries = {entry["origin"]: entry for entry in map(json.loads, lines)}
    assert len(lines) == len(entries)
    assert set(entries) == {*web.links, *out_of_order}
    assert {url: entry["reason"] for url, entry in entries.items() if entry["reason"]} == {
        url: why for url, (_, why) in hostile.items()
    }
    assert {entry["kept"] for entry in entries.values() if entry["kept"]} == {best}
    assert {url for url, entry in entries.items() if entry["query"] == MALFORMED} == out_of_order
    assert [url for url, entry in entries.items() if entry["query"] == QUERY] == web.links
    assert all(entries[url]["page"] == page_of(url) for url in [*web.links, f"{HOST}/out-of-order.png"])
    assert [entry["rank"] for entry in entries.values()] == list(range(len(entries)))
    assert entries[f"{HOST}/rotated.jpg"]["height"] == 64
    assert {url for url, entry in entries.items() if entry.get("animated")} == {
        f"{HOST}/animated.gif",
        f"{HOST}/animated.webp",
    }

    folder = artifact / "imagefolder"
    accepted = {entry["file_name"] for entry in entries.values() if not entry["reason"]}
    assert accepted == {f"{file.parent.name}/{file.name}" for file in folder.glob("*/*.png")}
    assert len(accepted) == GOOD + len(strange) + 1
    for seed, url in enumerate(good):
        with Image.open(folder / entries[url]["file_name"]) as image:
            assert np.array_equal(np.asarray(image), np.asarray(sprite(seed)))
    loaded = datasets.load_dataset("imagefolder", data_dir=str(folder), cache_dir=str(tmp_path / "cache"))
    assert sum(len(loaded[split]) for split in loaded) == len(accepted)
    assert all(example["caption"] for split in loaded for example in loaded[split])
    check_report((artifact / "report" / "index.html").read_text(), entries)

    # Politeness: a second attempt only where it can help, not before the host is ready, and under one's own name.
    assert web.asked(f"{HOST}/gone.png") == 1
    first, second = (when for when, url in zip(web.times, web.requests, strict=True) if url == f"{HOST}/busy.png")
    assert second - first >= 2
    assert web.asked(f"{HOST}/always-busy.png") == 2  # once, and once again when all else was done
    assert web.asked(f"{HOST}/down.png") > 2  # with attempts in between
    assert web.agents == {"a collector that says so"}

    # Safety, where it counts: at the socket.
    proxy = urllib.parse.urlsplit(web.proxy)
    assert set(connections) == {(proxy.hostname, proxy.port)}
    forbidden = re.compile(r"127\.0\.0\.1|169\.254|2130706433|0x7f|intranet|localhost|::1|%31")
    assert not [url for url in web.requests if forbidden.search(url)]


def check_report(page: str, entries: dict[str, dict[str, Any]]) -> None:
    """Asserts that the page counts every reason and host, and shows what there is to see of each candidate."""
    shown = dict(re.findall(r"<tr><th>(\w+) <span[^\n]*\n<td class=\"figure\">(\d+)</td>", page))
    counts = Counter(entry["reason"] for entry in entries.values() if entry["reason"])
    assert {reason: int(number) for reason, number in shown.items() if reason in set(Reason)} == counts
    hosts = Counter(urllib.parse.urlsplit(url).hostname for url in entries if "[broken" not in url)
    assert f'<tr><th>hostile.example.org <span class="soft">{accepted_of(entries)} accepted' in page
    assert f">{hosts['hostile.example.org']}</td>" in page
    seen = [entry for entry in entries.values() if entry["reason"] and "sha256" in entry]
    unseen = [entry for entry in entries.values() if entry["reason"] and "sha256" not in entry]
    tiles = re.findall(r'<li><img src="data:image/png;base64,[^"]+" alt="([^"]*)">', page)
    assert Counter(tile.partition(":")[0] for tile in tiles[-len(seen) :]) == Counter(one["reason"] for one in seen)
    assert len(tiles) == len(seen) + 120
    rows = re.findall(r"<tr><th>(\w+)</th><td>[^<]*</td><td>", page)
    assert Counter(rows[: len(unseen)]) == Counter(one["reason"] for one in unseen)


def accepted_of(entries: dict[str, dict[str, Any]]) -> int:
    return sum(url.startswith(HOST) and not entry["reason"] for url, entry in entries.items())


@pytest.mark.usefixtures("name_server")
def test_without_a_proxy_no_connection_is_opened_to_a_private_address(
    prepare: Any, tmp_path: Path, connections: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("https_proxy", "http_proxy", "HTTPS_PROXY", "HTTP_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    urls = [f"http://{host}/a.png" for host in PRIVATE]
    urls += [
        "http://127.0.0.1:1/a.png",
        "http://[::1]/a.png",
        "http://169.254.169.254/",
        "http://2130706433/",
        "http://0/",
    ]
    urls += ["file:///etc/passwd", "gopher://example.com/"]
    files = tmp_path / "images"
    files.mkdir()
    with (files / "list.csv").open("w", newline="") as sink:
        csv.writer(sink).writerows([["url"], *([url] for url in urls)])
    with pytest.raises(Exception, match=rf"{len(urls)} blocked_address"):
        prepare(source="urls", urls=str(files / "list.csv"))
    assert connections == []


def test_the_very_address_of_a_connection_is_checked_when_everything_before_it_was_deceived() -> None:
    from service.dataset.candidates import Rejection
    from service.dataset.sources.transport import public_socket

    with pytest.raises(Rejection):
        public_socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80)))
    public_socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 80))).close()
