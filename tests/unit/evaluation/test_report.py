import json
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from math import nan
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from service.diffusion.drawing.grid import comparison_grid
from service.evaluation.gate import Measurements, Thresholds, decide
from service.evaluation.metrics import Interval
from service.evaluation.report import Counts, Evaluation, Pair, write_report

MEASURED = Measurements(
    liveness=1.0,
    style_gain=Interval(0.123, 0.091, 0.155),
    adherence_gain=Interval(-0.21, -0.72, 0.3),
    held_out_gain=Interval(0.011, -0.002, 0.02),
)
LOSSES = [(step, 0.2 + 0.1 / step + 0.05 * (step % 7) / 7) for step in range(1, 101)]
HELD_OUT = [(25, 0.21), (50, 0.2), (75, nan), (100, 0.19)]


def evaluation(measured: Measurements = MEASURED, **changes: Any) -> Evaluation:
    decision = decide(measured, Thresholds())
    values: dict[str, Any] = {
        "decision": decision.outcome,
        "reason": decision.reason,
        "measurements": measured,
        "thresholds": Thresholds(),
        "confidence": 0.95,
        "style_distance": Pair(0.171, 0.048),
        "adherence": Pair(25.31, 25.1),
        "held_out_loss": Pair(0.141, 0.13),
        "counts": Counts(prompts=2, variations=2, held_out_images=20),
        "prompts": ["8-bit illustration, a red apple", "8-bit illustration, a boat"],
        "lora": "runs/demo/lora",
        "dataset": "datasets/emoji/3f2a",
        "settings": {"seed": 1000, "model_base": "miniature", "lora": None},
    }
    return Evaluation(**{**values, **changes})


def grid() -> Image.Image:
    images = [[Image.new("RGB", (16, 16), "red")] * 2] * 2
    return comparison_grid(["an apple", "a boat"], images, images)


def page(folder: Path, **changes: Any) -> str:
    write_report(folder, evaluation(**changes), grid(), LOSSES, HELD_OUT)
    return (folder / "index.html").read_text(encoding="utf-8")


class References(HTMLParser):
    """Whatever a browser would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]


def references(html: str) -> References:
    parser = References()
    parser.feed(html)
    return parser


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_report(tmp_path / name, evaluation(), grid(), LOSSES, HELD_OUT)
    for file in ("evaluation.json", "index.html"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def test_the_page_needs_no_other_file_and_no_network(tmp_path: Path) -> None:
    html = page(tmp_path)
    found = references(html)
    assert found.addresses
    assert all(address.startswith("data:") for address in found.addresses)
    assert not {"script", "iframe", "object", "embed"} & set(found.tags)
    assert not re.search(r"https?://|@import|url\(", html)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evaluation.json", "index.html"]


@pytest.mark.parametrize("field", ["prompts", "lora", "dataset", "reason", "settings"])
def test_a_script_in_text_from_the_web_stays_text(tmp_path: Path, field: str) -> None:
    hostile = "a <script>alert(1)</script> \"quoted\" <img src=x onerror='alert(2)'>"
    value: Any = {"prompts": [hostile], "settings": {hostile: hostile, "nested": [hostile]}}.get(field, hostile)
    html = page(tmp_path, **{field: value})
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert references(html).tags.count("img") == 2


def test_decision_and_reason_stand_before_the_grid_and_the_table(tmp_path: Path) -> None:
    html = page(tmp_path)
    places = [html.index(part) for part in ('class="badge promote"', 'class="reason"', 'class="grid"', "<table>")]
    assert places == sorted(places)
    assert evaluation().reason in unescape(html)


def test_the_table_shows_both_sides_the_interval_and_what_is_needed(tmp_path: Path) -> None:
    html = page(tmp_path)
    for figure in ("0.171", "0.048", "+0.123", "+0.091 to +0.155", "25.31", "interval above -1", "at least 95%"):
        assert figure in html


def test_evaluation_json_reads_back_as_it_was(tmp_path: Path) -> None:
    page(tmp_path)
    text = (tmp_path / "evaluation.json").read_text(encoding="utf-8")
    assert Evaluation.model_validate_json(text) == evaluation()
    assert json.loads(text)["measurements"]["style_gain"] == {"value": 0.123, "low": 0.091, "high": 0.155}


def test_figures_that_are_not_finite_are_written_as_json_and_read_back(tmp_path: Path) -> None:
    broken = replace(MEASURED, style_gain=Interval(nan, nan, nan))
    write_report(tmp_path, evaluation(broken), grid())

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    text = (tmp_path / "evaluation.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=refuse)["decision"] == "reject"
    assert not Evaluation.model_validate_json(text).measurements.style_gain.finite


def test_without_losses_the_page_has_no_chart(tmp_path: Path) -> None:
    write_report(tmp_path, evaluation(), grid())
    assert references((tmp_path / "index.html").read_text(encoding="utf-8")).tags.count("img") == 1


@pytest.mark.parametrize("count", [1, 5, 39, 40, 500])
def test_a_curve_of_any_length_is_drawn(tmp_path: Path, count: int) -> None:
    write_report(tmp_path, evaluation(), grid(), [(step, 1 / step) for step in range(1, count + 1)])
    assert "data:image/svg+xml" in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_only_held_out_losses_or_only_broken_ones_are_no_obstacle(tmp_path: Path) -> None:
    write_report(tmp_path, evaluation(), grid(), [], HELD_OUT)
    write_report(tmp_path, evaluation(), grid(), [(1, nan), (2, nan)])
    assert "data:image/svg+xml" in (tmp_path / "index.html").read_text(encoding="utf-8")
