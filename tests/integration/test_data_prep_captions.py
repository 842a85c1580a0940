"""Folders as people have them, on a disk and in a bucket alike: every caption is used, or somebody is told."""

import csv
import json
import unicodedata
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import boto3
import pyarrow
import pyarrow.parquet
import pytest
from structlog.testing import capture_logs

from service.exits import BadData
from tests.conftest import use
from tests.pictures import encoded, png, sprite
from tests.servers import S3Server

pytestmark = pytest.mark.filterwarnings(r"ignore:unclosed file .*imagefolder/.*:ResourceWarning")

Files = Mapping[str, bytes | str]
COMPOSED, APART = "café", unicodedata.normalize("NFD", "café")


@pytest.fixture(params=["folder", "s3"])
def bring(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Files], str]:
    """Puts files in a folder or in a bucket, and gives its place."""

    def in_folder(files: Files) -> str:
        for name, content in files.items():
            file = tmp_path / "ours" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(tmp_path / "ours")

    def in_bucket(files: Files) -> str:
        server: S3Server = request.getfixturevalue("moto")
        use(server, monkeypatch)
        bucket = server.new_bucket()
        for name, content in files.items():
            boto3.client("s3").put_object(Bucket=bucket, Key=f"ours/{name}", Body=content)
        return f"s3://{bucket}/ours"

    return in_folder if request.param == "folder" else in_bucket


@pytest.fixture
def captions(prepare: Any, tmp_path: Path) -> Callable[..., dict[str, str]]:
    """What each image of a place is captioned with in the data set made of it, by its name there. Nobody else captions."""

    def run(place: str, **values: Any) -> dict[str, str]:
        path = prepare(folder=place, **{"style": "", "captioner": "sidecar", "min_images": 2, **values})
        rows: dict[str, str] = {}
        for table in (tmp_path / "artifacts" / path / "imagefolder").glob("*/metadata.csv"):
            with table.open(newline="", encoding="utf-8") as file:
                rows |= {f"{table.parent.name}/{row['file_name']}": row["caption"] for row in csv.DictReader(file)}
        return {entry["origin"]: rows[entry["file_name"]] for entry in entries(tmp_path) if entry["file_name"]}

    return run


def entries(tmp_path: Path) -> list[dict[str, Any]]:
    [file] = (tmp_path / "artifacts").rglob("provenance/candidates.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def page(tmp_path: Path) -> str:
    [file] = (tmp_path / "artifacts").rglob("report/index.html")
    return file.read_text(encoding="utf-8")


def images(*names: str) -> dict[str, bytes | str]:
    return {name: encoded(sprite(seed), "JPEG" if "jp" in name.lower() else "PNG") for seed, name in enumerate(names)}


def test_captions_are_used_however_their_files_are_named(
    bring: Callable[[Files], str], captions: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    texts = {
        "a.caption": "a boat",
        "b.png.txt": "a dog",
        "C.TXT": "a cat",
        "d.txt": "a tree",
        "tags.csv": "x",
        "e.json": "{}",
    }
    with capture_logs() as events:
        found = captions(bring({**images("a.png", "b.png", "c.png", "d.png", "e.png"), **texts}))
    assert found == {"a.png": "a boat", "b.png": "a dog", "c.png": "a cat", "d.png": "a tree"}
    [warning] = [event for event in events if event["event"] == "captions were not read"]
    assert (warning["unread_caption_files"], warning["files"]) == (2, ["e.json", "tags.csv"])
    assert "<tr><th>unread_caption_files" in page(tmp_path)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_tables_of_other_kinds_are_read_as_the_csv_one_is(
    kind: str, bring: Callable[[Files], str], captions: Callable[..., dict[str, str]]
) -> None:
    rows = [
        {"file_name": "a.png", "caption": "a boat, at sea"},
        {"file_name": "sub/b.png", "text": "x", "caption": "a dog"},
    ]
    buffer = BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
    content = buffer.getvalue() if kind == "parquet" else "".join(json.dumps(row) + "\n" for row in rows)
    place = bring({**images("a.png", "sub/b.png"), f"metadata.{kind}": content})
    assert captions(place) == {"a.png": "a boat, at sea", "sub/b.png": "a dog"}


def test_a_caption_with_a_comma_loses_nothing(
    bring: Callable[[Files], str], captions: Callable[..., dict[str, str]]
) -> None:
    table = "file_name,caption\na.png,a red boat, at sea\nb.png,a dog\n"
    assert captions(bring({**images("a.png", "b.png"), "metadata.csv": table})) == {
        "a.png": "a red boat, at sea",
        "b.png": "a dog",
    }


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ("file_name,caption,source\na.png,a red boat, at sea,me\n", 2),
        ('file_name,caption\nb.png,x\na.png,"a red boat\nc.png,a cat\n', 3),
        ('file_name,caption\na.png,"a red boat\nb.png,a dog"\nc.png,a cat\n', 2),
    ],
)
def test_a_table_that_would_lose_a_caption_is_refused_with_its_line(
    table: str, line: int, bring: Callable[[Files], str], captions: Callable[..., dict[str, str]]
) -> None:
    with pytest.raises(BadData, match=f"metadata.csv, line {line}: "):
        captions(bring({**images("a.png", "b.png", "c.png"), "metadata.csv": table}))


@pytest.mark.parametrize(
    "table",
    [
        "file_name,caption\na.png,un café à la crème\nb.png,“red”\n".encode("cp1252"),
        "file_name,caption\r\na.png,un café à la crème\r\nb.png,“red”\r\n".encode("utf-16"),
        "file_name;caption\na.png;un café à la crème\nb.png;“red”\n".encode(),
        "file_name, caption\na.png, un café à la crème\nb.png, “red”\n".encode(),
        "file_name\tcaption\na.png\tun café à la crème\nb.png\t“red”\n".encode("utf-16-le"),
    ],
)
def test_tables_of_other_systems_keep_every_letter(
    table: bytes, bring: Callable[[Files], str], captions: Callable[..., dict[str, str]]
) -> None:
    assert captions(bring({**images("a.png", "b.png"), "metadata.csv": table})) == {
        "a.png": "un café à la crème",
        "b.png": "“red”",
    }


def test_text_files_of_other_systems_keep_every_letter_or_are_refused(
    bring: Callable[[Files], str], captions: Callable[..., dict[str, str]]
) -> None:
    texts = {"a.txt": "un café".encode("cp1252"), "b.txt": "красная лодка".encode("utf-16")}
    assert captions(bring({**images("a.png", "b.png"), **texts})) == {"a.png": "un café", "b.png": "красная лодка"}
    with pytest.raises(BadData, match=r"ours/a\.txt cannot be read as text at byte 3: .*UTF-8"):
        captions(bring({**images("a.png", "b.png"), "a.txt": b"un \xea\xee\xf2"}))


def test_names_that_another_system_wrote_are_matched(
    bring: Callable[[Files], str], captions: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    rows = [
        COMPOSED + ".png,a cup",
        "sub\\b.png,a boat",
        "c.jpg,a cat",
        "d.png,a dog",
        "d.png,a wolf",
        "lost.png,x",
        "D.PNG,y",
    ]
    table = "\n".join(["file_name,caption", *rows])
    with capture_logs() as events:
        found = captions(bring({**images(f"{APART}.png", "sub/b.png", "c.JPG", "d.png"), "metadata.csv": table}))
    assert found == {f"{APART}.png": "a cup", "sub/b.png": "a boat", "c.JPG": "a cat", "d.png": "a dog"}
    [warning] = [event for event in events if event["event"] == "captions were not read"]
    assert (warning["rows_without_image"], warning["captioned_twice"]) == (1, 2)
    assert "<tr><th>rows_without_image" in page(tmp_path)
    assert "<tr><th>captioned_twice" in page(tmp_path)


def test_what_systems_and_tools_leave_is_no_candidate_and_uses_up_no_limit(
    bring: Callable[[Files], str], captions: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    left = [
        ".DS_Store", "._a.png", ".thumbnails/a.png", "@eaDir/a.png/SYNOPHOTO_THUMB_M.png", "Thumbs.db", "__MACOSX/._a.png",
        "desktop.ini", "#recycle/old.png", ".a.png.swp", "$RECYCLE.BIN/a.png",
    ]  # fmt: skip
    files = {**images("a.png", "b.png"), **dict.fromkeys(left, png(99)), "a.txt": "a boat", "b.txt": "a dog"}
    assert captions(bring(files), limit=2, candidates=2) == {"a.png": "a boat", "b.png": "a dog"}
    assert [entry["origin"] for entry in entries(tmp_path)] == ["a.png", "b.png"]
