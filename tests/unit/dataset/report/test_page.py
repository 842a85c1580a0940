"""The page of a data set."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service.dataset.candidates import Candidate, Reason, Record
from service.dataset.report.page import Tile, write_dataset_report
from tests.pictures import png
from tests.unit.dataset.records import record


def page(tmp_path: Path, records: Sequence[Record], **values: Any) -> str:
    arguments: dict[str, Any] = {
        "name": "sprites",
        "style": "pixel art",
        "captions": {one.sha256: f"pixel art, thing {one.candidate.rank}" for one in records if one.features},
        "accepted": [],
        "rejected": [],
        "held_out": 0,
        "notes": {},
        "settings": {"limit": 9, "side": None},
        **values,
    }
    write_dataset_report(tmp_path / "report" / "index.html", records=records, **arguments)
    return (tmp_path / "report" / "index.html").read_text(encoding="utf-8")


def test_the_page_counts_shows_and_explains(tmp_path: Path) -> None:
    records = [
        record(0, "http://a.example/1.png", size=(200, 100)),
        record(1, "http://a.example/2.png", Reason.TOO_SMALL),
        record(2, "http://b.example/3.png", Reason.TOO_SMALL),
    ]
    tiles = [Tile(png(0), "pixel art, thing 0", records[0].candidate.origin, "validation")]
    tile = Tile(png(1), "too_small: 64x64", "x")
    text = page(tmp_path, records, accepted=tiles, rejected=[tile], held_out=1)
    for part in ("too_small", "too few pixels", "64 to 127", "a.example", "held out", "thing", "64x64", "limit"):
        assert part in text
    assert "<b>0</b> to train on" in text
    assert re.search(r"<b>1</b> images.*<b>3</b> candidates.*<b>2</b> left out.*<b>2</b> hosts", text, re.DOTALL)
    assert "wide, over 2:1" in text


def test_the_same_data_set_gives_the_same_page(tmp_path: Path) -> None:
    records = [record(rank, f"http://{rank % 7}.example/{rank}.png") for rank in range(40)]
    assert page(tmp_path / "a", records) == page(tmp_path / "b", records)


def test_the_page_needs_no_other_file_and_runs_nothing(tmp_path: Path) -> None:
    records = [record(0, "javascript:alert(1)"), record(1, "http://a.example/1.png")]
    tiles = [Tile(png(0), "a cat", one.candidate.origin) for one in records]
    text = page(tmp_path, records, accepted=tiles)
    assert "default-src 'none'" in text
    assert "<script" not in text
    assert set(re.findall(r'(?:src|href)="([^"]{,22})', text)) == {
        "data:,",
        "data:image/png;base64,",
        "http://a.example/1.png",
    }


def test_what_the_web_says_is_text_and_nothing_else(tmp_path: Path) -> None:
    evil = '"><script>alert(1)</script>\x00\ud800' + "x" * 5000
    records = [Record(Candidate(0, evil), None, evil, record(0).features)]
    text = page(
        tmp_path,
        records,
        name=evil,
        style=evil,
        captions={records[0].sha256: evil},
        accepted=[Tile(png(0), evil, evil)],
    )
    assert "<script" not in text
    assert len(text) < 60_000


def test_very_many_candidates_make_no_larger_a_page(tmp_path: Path) -> None:
    small = page(tmp_path / "a", [record(rank, f"http://{rank}.example/") for rank in range(100)])
    large = page(tmp_path / "b", [record(rank, f"http://{rank}.example/") for rank in range(20_000)])
    assert len(large) < len(small) + 2000


def test_what_was_never_seen_is_listed(tmp_path: Path) -> None:
    lost = [Record(Candidate(1, "http://a.example/<b>.png"), Reason.HTTP_STATUS, "410"), record(2)]
    text = page(tmp_path, [record(0), *lost])
    assert "Left out without a picture: 1<" in text
    assert "<tr><th>http_status</th><td>410</td><td>http://a.example/&lt;b&gt;.png</td></tr>" in text
