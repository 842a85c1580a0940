"""Folders as people have them, on a disk and in a bucket alike: every caption is used, refused or counted."""

import csv
import json
import shutil
import unicodedata
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import boto3
import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image
from structlog.testing import capture_logs

from service.dataset.captions.captioners import BlipCaptioner
from service.diffusion.families import token_counter
from service.exits import BadData
from service.settings.data_prep import DataPrepSettings
from tests.conftest import use
from tests.pictures import deep_png, encoded, heic, png, sprite
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


def test_long_captions_of_any_script_become_one_line_that_the_text_encoder_reads(
    bring: Callable[[Files], str], captions: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    words = "\n".join(" ".join(f"thing{number}" for number in range(start, start + 40)) for start in (0, 40, 80))
    texts = {"a.txt": words, "b.txt": "海上的一艘红船，有白色的帆" * 10, "c.txt": "a boat\nat sea\n"}
    with capture_logs() as events:
        found = captions(bring({**images("a.png", "b.png", "c.png"), **texts}))
    assert found["a.png"].startswith("thing0 thing1 ")
    assert found["b.png"].startswith("海上的一艘红船，有白色的帆")
    assert found["c.png"] == "a boat at sea"
    _, count_tokens = token_counter(DataPrepSettings.model_validate({"model_base": "miniature"}))
    assert [72 <= count_tokens(found[name]) <= 77 for name in ("a.png", "b.png")] == [True, True]
    [warning] = [event for event in events if event["event"] == "captions changed"]
    assert (warning["lines_joined"], warning["cut_to_fit"]) == (2, 2)
    assert "<tr><th>lines_joined" in page(tmp_path)
    assert "<tr><th>cut_to_fit" in page(tmp_path)


def test_loops_and_invented_words_of_a_captioner_are_cut_and_counted(
    bring: Callable[[Files], str], prepare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = iter(["a cat on top of a hat on top of a hat", "arafed dog in a field", "a tree"])
    monkeypatch.setattr(BlipCaptioner, "describe", lambda _, images: [next(words) for _ in images])
    path = prepare(folder=bring(images("a.png", "b.png", "c.png")), style="")
    tables = (tmp_path / "artifacts" / path / "imagefolder").glob("*/metadata.csv")
    rows = [row["caption"] for table in tables for row in csv.DictReader(table.read_text().splitlines())]
    assert sorted(rows) == ["a cat on top of a hat", "a tree", "dog in a field"]
    assert "<tr><th>loops_cut" in page(tmp_path)
    assert "<tr><th>invented_words_cut" in page(tmp_path)


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


def test_of_images_alike_and_as_large_the_lossless_one_stays(
    bring: Callable[[Files], str], captions: Callable[..., dict[str, str]]
) -> None:
    files: dict[str, bytes | str] = {"other.png": png(50), "other.txt": "other"}
    for seed, name in enumerate(["a.jpg", "z.png", "b.webp", "y.bmp"]):
        kind = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "bmp": "BMP"}[name[2:]]
        files |= {name: encoded(sprite(seed // 2), kind), f"{name[0]}.txt": name}
    assert captions(bring(files)) == {"z.png": "z.png", "y.bmp": "y.bmp", "other.png": "other"}


@pytest.mark.parametrize("channels", [1, 3])
def test_twelve_bits_in_sixteen_are_as_bright_as_they_were(
    channels: int, bring: Callable[[Files], str], prepare: Any, tmp_path: Path
) -> None:
    samples = np.random.default_rng(1).integers(0, 4096, (8, 8, channels), dtype=np.uint16).repeat(6, 0).repeat(6, 1)
    files = {"a.png": deep_png(samples[..., 0] if channels == 1 else samples), "b.png": png(1), "c.png": png(2)}
    path = prepare(folder=bring(files))
    [entry] = [entry for entry in entries(tmp_path) if entry["origin"] == "a.png"]
    with Image.open(tmp_path / "artifacts" / path / "imagefolder" / entry["file_name"]) as image:
        assert (np.asarray(image) == np.broadcast_to(samples >> 4, (48, 48, 3))).all()


def test_formats_of_phones_are_opened_where_the_setting_says_so(
    bring: Callable[[Files], str], prepare: Any, tmp_path: Path
) -> None:
    files = {
        "a.heic": heic(sprite(1)),
        "b.avif": encoded(sprite(2), "AVIF"),
        "c.png": png(3),
        "d.png": png(4),
        "e.png": png(5),
    }
    place = bring(files)
    prepare(folder=place)
    assert {entry["origin"]: (entry["reason"], entry["detail"]) for entry in entries(tmp_path) if entry["reason"]} == {
        "a.heic": ("format_not_allowed", "HEIC; DATA_PREP_EXTRA_FORMATS=heic opens it"),
        "b.avif": ("format_not_allowed", "AVIF; DATA_PREP_EXTRA_FORMATS=avif opens it"),
    }
    shutil.rmtree(tmp_path / "artifacts" / "datasets")
    prepare(folder=place, extra_formats="avif, heic")
    assert [entry["reason"] for entry in entries(tmp_path)] == [None] * 5
    assert "extra_formats" in page(tmp_path)


def test_captions_lie_beside_the_images_too_where_the_setting_says_so(
    bring: Callable[[Files], str], captions: Callable[..., dict[str, str]], prepare: Any, tmp_path: Path
) -> None:
    place = bring({**images("a.png", "b.png", "c.png"), "a.txt": "a boat", "b.txt": "un café", "c.txt": "a dog"})
    assert captions(place, caption_files="txt") == {"a.png": "a boat", "b.png": "un café", "c.png": "a dog"}
    [folder] = (tmp_path / "artifacts").rglob("imagefolder")
    texts = {file.stem: file.read_text(encoding="utf-8") for file in folder.rglob("*.txt")}
    assert set(texts) == {file.stem for file in folder.rglob("*.png")}
    assert sorted(texts.values()) == ["a boat", "a dog", "un café"]
    # Its own reader sees the same data set as without them, and so does data-prep.
    loaded = datasets.load_dataset("imagefolder", data_dir=str(folder), cache_dir=str(tmp_path / "cache"))
    assert sorted(row["caption"] for split in loaded for row in loaded[split]) == sorted(texts.values())
    plain = prepare(folder=place, style="", captioner="sidecar", min_images=2)
    assert not list((tmp_path / "artifacts" / plain).rglob("*.txt"))
    again = prepare(
        folder=f"datasets/8-bit-illustration/{folder.parent.name}", style="", captioner="sidecar", name="again"
    )
    assert len(list((tmp_path / "artifacts" / again).rglob("*.png"))) == 3
