import json
import re
from collections.abc import Mapping
from html import unescape
from html.parser import HTMLParser
from math import nan
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from service.artifacts.documents import WrittenByNewer
from service.artifacts.kinds.evaluation import Champion, Counts, Evaluation, Interval, Nearest, read_json
from service.diffusion.drawing.grid import comparison_grid
from service.evaluation.compare import Pairs
from service.evaluation.criteria.criterion import Figures
from service.evaluation.gate import CRITERIA, decide
from service.evaluation.missing import Doubt
from service.evaluation.report import Exhibits, write_evaluation
from service.evaluation.sample import Sides
from service.exits import BadData
from service.settings.evaluate import EvaluateSettings

MEASURED = {
    "liveness": Figures(None, 1.0),
    "style": Figures(0.171, 0.048, Interval(0.123, 0.091, 0.155)),
    "adherence": Figures(25.31, 25.1, Interval(-0.21, -0.72, 0.3)),
    "held_out": Figures(0.141, 0.13, Interval(0.011, -0.002, 0.02)),
    "broken": Figures(0.0, 0.0),
    "cmmd": Figures(2.31, 1.87, Interval(0.44, 0.21, 0.63)),
    "similarity": Figures(0.611, 0.657, Interval(0.046, 0.031, 0.062)),
    "bleed": Figures(0.168, 0.142, Interval(-0.026, -0.061, 0.004)),
    "diversity": Figures(0.114, 0.107, Interval(-0.0614, -0.14, 0.03)),
    "memorisation": Figures(0.0, 0.125, Interval(-0.125, -0.25, 0.0)),
    "copies": Figures(0.0, 3.0),
}
LOSSES = [(step, 0.2 + 0.1 / step + 0.05 * (step % 7) / 7) for step in range(1, 101)]
HELD_OUT = [(25, 0.21), (50, 0.2), (75, nan), (100, 0.19)]


def evaluation(measured: Mapping[str, Figures | None] = MEASURED, **changes: Any) -> Evaluation:
    findings = [one.finding(measured[one.name], one.threshold(EvaluateSettings())) for one in CRITERIA]
    decision = decide(findings)
    values: dict[str, Any] = {
        "decision": decision.outcome,
        "reason": decision.reason,
        "findings": findings,
        "confidence": 0.95,
        "counts": Counts(prompts=2, variations=2, held_out_images=20),
        "prompts": ["8-bit illustration, a red apple", "8-bit illustration, a boat"],
        "nearest": [Nearest(3, "8-bit illustration, a boat", "000017_0123456789ab.png", 0.953)],
        "lora": "runs/demo/lora",
        "dataset": "datasets/emoji/3f2a",
        "measurements": "runs/demo/measurements/0123456789ab",
        "settings": {"seed": 1000, "model_base": "miniature", "lora": None},
    }
    return Evaluation(**{**values, **changes})


def grid() -> Image.Image:
    images = [[Image.new("RGB", (16, 16), "red")] * 2] * 2
    return comparison_grid(["an apple", "a boat"], images, images)


def exhibits(**changes: Any) -> Exhibits:
    nearest = [[Image.new("RGB", (16, 16), "green")]]
    values = {"grid": grid(), "nearest": comparison_grid(["0.953 a boat"], nearest, nearest), "losses": LOSSES}
    return Exhibits(**{**values, "held_out": HELD_OUT, **changes})


def page(folder: Path, **changes: Any) -> str:
    write_evaluation(folder, evaluation(**changes), exhibits())
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
        write_evaluation(tmp_path / name, evaluation(), exhibits())
    for file in ("evaluation.json", "index.html", "report.md"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def test_the_page_needs_no_other_file_and_no_network(tmp_path: Path) -> None:
    html = page(tmp_path)
    found = references(html)
    assert found.addresses
    assert all(address.startswith("data:") for address in found.addresses)
    assert not {"script", "iframe", "object", "embed"} & set(found.tags)
    assert not re.search(r"https?://|@import|url\(", html)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evaluation.json", "index.html", "report.md"]


@pytest.mark.parametrize("field", ["prompts", "lora", "dataset", "reason", "settings"])
def test_a_script_in_text_from_the_web_stays_text(tmp_path: Path, field: str) -> None:
    hostile = "a <script>alert(1)</script> \"quoted\" <img src=x onerror='alert(2)'>"
    value: Any = {"prompts": [hostile], "settings": {hostile: hostile, "nested": [hostile]}}.get(field, hostile)
    html = page(tmp_path, **{field: value})
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert references(html).tags.count("img") == 3


def test_decision_and_reason_stand_before_the_grid_and_the_table(tmp_path: Path) -> None:
    html = page(tmp_path)
    places = [html.index(part) for part in ('class="badge promote"', 'class="reason"', 'class="grid"', "<table>")]
    assert places == sorted(places)
    assert evaluation().reason in unescape(html)


def test_what_scrolls_on_a_small_screen_is_reached_by_the_keyboard_and_has_a_name(tmp_path: Path) -> None:
    scrolling = re.findall(r'<div class="scroll"([^>]*)>', page(tmp_path))
    assert len(scrolling) == 3
    for attributes in scrolling:
        assert 'tabindex="0"' in attributes
        assert 'role="region"' in attributes
        assert re.search(r'aria-label="\w', attributes)


def test_on_a_small_screen_the_grid_keeps_half_its_size_so_that_its_labels_are_read(tmp_path: Path) -> None:
    html = page(tmp_path)
    assert f"--readable: {round(grid().width / 2)}px" in html
    assert re.search(r"@media \(max-width: 700px\) \{\s*\.grid \{ max-width: none; width: var\(--readable\)", html)


def test_the_table_shows_both_sides_the_interval_and_what_is_needed(tmp_path: Path) -> None:
    html = page(tmp_path)
    for figure in ("0.171", "0.048", "+0.123", "+0.091 to +0.155", "25.31", "interval above -1", "at least 95%"):
        assert figure in html


HELD = {
    **MEASURED,
    "style": Figures(
        0.171, 0.16, Interval(0.011, -0.009, 0.031), Doubt(4.0, 1.0, 3.0, prompts=24, seeds=2, held_out=40)
    ),
}


def test_a_hold_says_in_the_reason_on_the_pages_and_to_programs_what_would_decide_it(tmp_path: Path) -> None:
    held = evaluation(HELD)
    lacking = held.finding("style").missing
    assert lacking is not None
    assert lacking.held_out_images
    assert held.decision == "hold"
    assert str(lacking) in held.reason
    write_evaluation(tmp_path, held, exhibits())
    for file in ("index.html", "report.md"):
        assert (tmp_path / file).read_text(encoding="utf-8").count(str(lacking)) == 2, (
            "in the reason and beside the figures"
        )
    assert read_json(tmp_path).finding("style").missing == lacking


def test_the_report_has_a_line_for_each_measurement_with_its_figures_interval_threshold_and_outcome(
    tmp_path: Path,
) -> None:
    write_evaluation(tmp_path, evaluation(), exhibits())
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert text.startswith("## promote: `runs/demo/lora`\n\n" + evaluation().reason)
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(lines) == 1 + len(CRITERIA) + 2
    assert "| Distance to the style | 0.171 | 0.048 | +0.123 | +0.091 to +0.155 | interval above 0 | promote |" in lines
    assert "| Copies of training images | 0 | 3 |  |  |  | told |" in lines
    assert "| `00003.png` | `000017_0123456789ab.png` | 0.953 |" in lines


def test_both_pages_name_the_champion_that_the_lora_was_compared_with_or_say_why_there_is_none(tmp_path: Path) -> None:
    champion = Champion(lora="runs/old/lora", version="1", scale=0.8)
    compared = [evaluation().findings[0].model_copy(update={"against": "champion"})]
    for changes, said in (
        ({}, "no champion to compare with"),
        ({"champion": champion}, "champion runs/old/lora at strength 0.8, which is this LoRA"),
        ({"champion": champion, "findings": compared}, "champion runs/old/lora at strength 0.8"),
    ):
        write_evaluation(tmp_path, evaluation(**changes), exhibits())
        for file in ("index.html", "report.md"):
            text = (tmp_path / file).read_text(encoding="utf-8")
            assert f" · {said}" in text
            assert ("which is this LoRA" in text) == said.endswith("this LoRA")


def test_text_from_the_web_is_no_part_of_a_comment_on_a_pull_request(tmp_path: Path) -> None:
    hostile = "![x](https://example.org/x.png) @everyone <img src=x>"
    write_evaluation(tmp_path, evaluation(prompts=[hostile], nearest=[Nearest(0, hostile, "000.png", 0.5)]), exhibits())
    assert "example.org" not in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "<img src=x>" not in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_the_pages_show_what_could_not_be_measured_as_empty(tmp_path: Path) -> None:
    write_evaluation(tmp_path, evaluation({**MEASURED, "bleed": None}, nearest=[]), Exhibits(grid()))
    assert "| Bleed |  |  |  |  |  | told |" in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "Nearest training images" not in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "Nearest training images" not in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_the_page_shows_what_was_decided_and_decides_nothing_itself(tmp_path: Path) -> None:
    style = evaluation().finding("style").model_copy(update={"outcome": "hold", "needed": "something else"})
    html = page(tmp_path, decision="promote", findings=[style])
    assert '<td class="hold">hold</td>' in html
    assert "something else" in html
    assert "Following the prompt" not in html


def test_evaluation_json_reads_back_as_it_was(tmp_path: Path) -> None:
    page(tmp_path)
    assert read_json(tmp_path) == evaluation()
    text = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    style = next(finding for finding in text["findings"] if finding["name"] == "style")
    assert style["gain"] == {"value": 0.123, "low": 0.091, "high": 0.155}
    assert (style["base"], style["lora"], style["threshold"], style["outcome"]) == (0.171, 0.048, 0.0, "promote")
    assert style["clause"] == "the style comes nearer to the held-out images, gain +0.123 [+0.091, +0.155]"


def test_figures_that_are_not_finite_are_written_as_json_and_read_back(tmp_path: Path) -> None:
    broken = {**MEASURED, "style": Figures(nan, 0.1, Interval(nan, nan, nan))}
    write_evaluation(tmp_path, evaluation(broken), Exhibits(grid()))

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    text = (tmp_path / "evaluation.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=refuse)["decision"] == "reject"
    style = read_json(tmp_path).finding("style")
    assert style.base != style.base
    assert style.gain is not None
    assert not style.gain.finite


OLD = {
    "schema_version": 1,
    "decision": "promote",
    "reason": "Promoted: the LoRA changes 100.0% of the images.",
    "measurements": {
        "liveness": 1.0,
        "style_gain": {"value": 0.123, "low": 0.091, "high": 0.155},
        "adherence_gain": {"value": -0.21, "low": -0.72, "high": "NaN"},
        "held_out_gain": {"value": 0.011, "low": -0.002, "high": 0.02},
    },
    "thresholds": {"live_share": 0.95, "adherence_margin": 1.0},
    "confidence": 0.95,
    "style_distance": {"base": 0.171, "lora": 0.048},
    "adherence": {"base": 25.31, "lora": 25.1},
    "held_out_loss": {"base": 0.141, "lora": 0.13},
    "counts": {"prompts": 2, "variations": 2, "held_out_images": 20},
    "prompts": ["8-bit illustration, a red apple"],
    "lora": "runs/demo/lora",
    "dataset": "datasets/emoji/3f2a",
    "settings": {"seed": 1000},
}


def test_an_evaluation_of_version_1_is_read_with_its_figures_and_its_decision(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text(json.dumps(OLD))
    old = read_json(tmp_path)
    assert (old.decision, old.reason, old.lora, old.measurements) == ("promote", OLD["reason"], "runs/demo/lora", None)
    assert [finding.name for finding in old.findings] == ["liveness", "style", "adherence", "held_out"]
    assert old.finding("liveness").lora == 1.0
    assert old.finding("style").gain == Interval(0.123, 0.091, 0.155)
    assert (old.finding("adherence").base, old.finding("adherence").threshold) == (25.31, -1.0)
    assert old.finding("style").outcome is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema_version": 2}', '{"schema_version": 1}', "null"])
def test_what_is_no_evaluation_is_bad_data_that_names_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "evaluation.json").write_text(text)
    with pytest.raises(BadData, match=r"evaluation\.json"):
        read_json(tmp_path)


def test_a_newer_evaluation_is_said_to_be_that_and_never_damaged(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text('{"schema_version": 3}')
    with pytest.raises(WrittenByNewer, match=r"evaluation\.json.*newer version"):
        read_json(tmp_path)


def test_the_page_links_the_blind_comparison_where_there_is_one(tmp_path: Path) -> None:
    picture = Image.new("RGB", (16, 16), "red")
    pairs = Pairs("runs/demo/images/1", "0123", ["an apple"], Sides([picture], [picture]))
    write_evaluation(tmp_path, evaluation(), exhibits(pairs=pairs))
    assert references((tmp_path / "index.html").read_text(encoding="utf-8")).addresses.count("compare.html") == 1
    found = references((tmp_path / "compare.html").read_text(encoding="utf-8"))
    assert found.tags.count("img") == 2
    assert all(address.startswith("data:") for address in found.addresses)


def test_without_losses_the_page_has_no_chart(tmp_path: Path) -> None:
    write_evaluation(tmp_path, evaluation(), Exhibits(grid()))
    assert references((tmp_path / "index.html").read_text(encoding="utf-8")).tags.count("img") == 1


@pytest.mark.parametrize("count", [1, 5, 39, 40, 500])
def test_a_curve_of_any_length_is_drawn(tmp_path: Path, count: int) -> None:
    write_evaluation(tmp_path, evaluation(), exhibits(losses=[(step, 1 / step) for step in range(1, count + 1)]))
    assert "data:image/svg+xml" in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_only_held_out_losses_or_only_broken_ones_are_no_obstacle(tmp_path: Path) -> None:
    write_evaluation(tmp_path, evaluation(), exhibits(losses=[]))
    write_evaluation(tmp_path, evaluation(), exhibits(losses=[(1, nan), (2, nan)], held_out=[]))
    assert "data:image/svg+xml" in (tmp_path / "index.html").read_text(encoding="utf-8")
