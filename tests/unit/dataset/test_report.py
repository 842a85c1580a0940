"""The page of a data set."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from service.dataset.candidates import Candidate, Features, Reason, Record
from service.dataset.report.caption_statistics import caption_statistics
from service.dataset.report.figures import EXPLANATIONS, by_host, by_reason
from service.dataset.report.page import Tile, write_dataset_report
from service.dataset.report.samples import SHOWN, of_each_reason, shared_out, spread
from tests.pictures import png


def record(rank: int, origin: str = "a.png", reason: Reason | None = None, size: tuple[int, int] = (64, 64)) -> Record:
    return Record(Candidate(rank, origin), reason, "", Features(f"{rank:064x}", *size, *size, 0, 0, 0))


def page(tmp_path: Path, records: Sequence[Record], **values: Any) -> str:
    arguments: dict[str, Any] = {
        "name": "sprites",
        "style": "pixel art",
        "captions": {one.sha256: f"pixel art, thing {one.candidate.rank}" for one in records if one.features},
        "accepted": [],
        "rejected": [],
        "held_out": 0,
        "settings": {"limit": 9, "side": None},
        **values,
    }
    write_dataset_report(tmp_path / "report" / "index.html", records=records, **arguments)
    return (tmp_path / "report" / "index.html").read_text(encoding="utf-8")


def test_every_reason_is_explained() -> None:
    assert set(EXPLANATIONS) == set(Reason)


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


def test_a_rare_reason_is_shown_whole_beside_a_common_one() -> None:
    common = [record(rank, reason=Reason.DUP_NEAR) for rank in range(500)]
    rare = [record(rank, reason=Reason.TOO_SMALL) for rank in range(500, 503)]
    unseen = [Record(Candidate(rank, "x"), Reason.HTTP_STATUS) for rank in range(503, 510)]
    records = [*common, *rare, *unseen, record(510)]
    shown = of_each_reason(records, seen=True)
    assert len(shown) == SHOWN
    assert shown[:3] == rare
    assert {one.reason for one in shown[3:]} == {Reason.DUP_NEAR}
    assert of_each_reason(records, seen=False) == unseen


@given(st.lists(st.integers(0, 40), max_size=9), st.integers(0, 100))
def test_what_can_be_shown_is_shared_out(sizes: list[int], count: int) -> None:
    shares = shared_out(sizes, count)
    assert sum(shares) == min(count, sum(sizes))
    assert all(share <= size for share, size in zip(shares, sizes, strict=True))
    cut = [share for share, size in zip(shares, sizes, strict=True) if share < size]
    assert not cut or max(shares) - min(cut) <= 1


def test_what_was_never_seen_is_listed(tmp_path: Path) -> None:
    lost = [Record(Candidate(1, "http://a.example/<b>.png"), Reason.HTTP_STATUS, "410"), record(2)]
    text = page(tmp_path, [record(0), *lost])
    assert "Left out without a picture: 1<" in text
    assert "<tr><th>http_status</th><td>410</td><td>http://a.example/&lt;b&gt;.png</td></tr>" in text


def test_hosts_and_reasons_come_by_number() -> None:
    records = [record(rank, f"https://{host}.example/{rank}") for rank, host in enumerate("abbcccc")]
    records += [record(9, "file.png"), record(10, "https://a.example/x", Reason.DNS)]
    assert [(bar.label, bar.number, bar.note) for bar in by_host(records)] == [
        ("c.example", 4, "4 accepted"),
        ("a.example", 2, "1 accepted"),
        ("b.example", 2, "2 accepted"),
    ]
    assert by_host([record(0)]) == []
    assert [(bar.label, bar.number, bar.share) for bar in by_reason(records)] == [("dns", 1, 100.0)]


def test_words_that_come_with_the_style_are_found_and_the_style_itself_is_not() -> None:
    captions = [
        f"Pixel art, a white background with {what}" for what in ["a cat", "a dog", "one tree", "a red car", "the sun"]
    ]
    few = caption_statistics(captions, "pixel art")
    assert few is not None
    assert few.fused is None
    found = caption_statistics(captions * 2, "pixel art")
    assert found is not None
    assert [bar.label for bar in found.fused or []] == ["background", "white"]
    assert not {"pixel", "art", "a", "with"} & {bar.label for bar in found.words}
    assert (found.shortest, found.median, found.longest) == (6, 6, 7)


def test_without_anything_in_common_nothing_is_fused() -> None:
    words = ["cat", "dog", "tree", "car", "sun", "moon", "hat", "key", "cup", "egg", "ant", "bee"]
    found = caption_statistics([f"pixel art, a {word}" for word in words], "pixel art")
    assert found is not None
    assert found.fused == []
    assert caption_statistics([], "pixel art") is None


@given(st.lists(st.integers(), min_size=1, max_size=50), st.integers(1, 20))
def test_what_is_shown_is_spread_over_all(items: list[int], count: int) -> None:
    shown = spread(items, count)
    assert len(shown) == min(count, len(items))
    places = spread(range(len(items)), count)
    assert places == sorted(set(places))
    gaps = [after - before for before, after in zip(places, [*places[1:], len(items)], strict=True)]
    assert max(gaps) - min(gaps) <= 1
    assert spread([], count) == []
