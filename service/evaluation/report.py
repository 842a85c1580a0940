"""The evaluation as an artifact: evaluation.json for programs, index.html and report.md for people.

The pages show what was decided: all that they say of a criterion stands in its finding. The same inputs give the same bytes.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from service.artifacts.kinds.evaluation import (
    COMPARE_FILE,
    PAGE_FILE,
    REPORT_FILE,
    Evaluation,
    Finding,
    Unit,
    write_json,
)
from service.evaluation.compare import Pairs, comparison_page
from service.evaluation.embedding import data_uri, picture_uri
from service.templates import rendered

PAGE = Path(__file__).with_name("report.html.jinja")
REPORT = Path(__file__).with_name("report.md.jinja")
READABLE = 0.5
"""Of its size, at which the labels of a grid can still be read: half of 24 pixels."""
SMOOTHED_FROM = 40
# Reads on a light and on a dark page; a picture cannot follow the page's colours.
CHART_INK = "#808080"
TRAINING_COLOUR = "#4c8dd6"
HELD_OUT_COLOUR = "#e08a2e"

FIGURES: dict[Unit, str] = {"share": "{:.1%}", "count": "{:.0f}", "": "{:.4g}"}

Curve = Sequence[tuple[int, float]]
"""(optimizer step, loss), by step."""


@dataclass(frozen=True)
class Exhibits:
    """What the page shows beside the figures.

    grid: base above LoRA; extremes: the same of the prompts that lose and gain most; nearest: what was drawn above the nearest
    training images; champion: champion above LoRA; candidates: what each strength that was tried drew; None is left out.
    losses, held_out: by training step, empty where they are not known; pairs: to vote on, None for no compare.html.
    """

    grid: Image.Image
    extremes: Image.Image | None = None
    nearest: Image.Image | None = None
    champion: Image.Image | None = None
    candidates: Image.Image | None = None
    losses: Curve = ()
    held_out: Curve = ()
    pairs: Pairs | None = None


@dataclass(frozen=True)
class CriterionRow:
    """A line of a table: a finding, its figures as text."""

    finding: Finding
    base: str
    lora: str
    gain: str
    interval: str


def write_evaluation(folder: Path, evaluation: Evaluation, exhibits: Exhibits) -> None:
    """Writes evaluation.json, report.md, index.html and compare.html into `folder`; the pages need no network."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(evaluation, folder)
    (folder / PAGE_FILE).write_text(_page(evaluation, exhibits), encoding="utf-8")
    (folder / REPORT_FILE).write_text(_report(evaluation), encoding="utf-8")
    if exhibits.pairs:
        (folder / COMPARE_FILE).write_text(comparison_page(exhibits.pairs), encoding="utf-8")


def _page(evaluation: Evaluation, exhibits: Exhibits) -> str:
    pictures = {
        "grid": exhibits.grid,
        "extremes": exhibits.extremes,
        "champion": exhibits.champion,
        "candidates": exhibits.candidates,
        "nearest": exhibits.nearest,
    }
    return rendered(
        PAGE,
        evaluation=evaluation,
        confidence=f"{evaluation.confidence:.3g}",
        rows=[_row(finding) for finding in evaluation.findings],
        pictures={name: _shown(picture) for name, picture in pictures.items() if picture},
        compare=COMPARE_FILE if exhibits.pairs else None,
        chart=_chart(exhibits.losses, exhibits.held_out),
        settings={name: _plain(value) for name, value in sorted(evaluation.settings.items())},
    )


def _report(evaluation: Evaluation) -> str:
    """Without prompts: they come from the web, and a comment would show whatever Markdown they hold."""
    confidence = f"{100 * evaluation.confidence:.3g} %"
    rows = [_row(finding) for finding in evaluation.findings]
    return rendered(REPORT, evaluation=evaluation, rows=rows, confidence=confidence).rstrip() + "\n"


def _shown(picture: Image.Image) -> dict[str, Any]:
    return {"uri": picture_uri(picture), "size": picture.size, "readable": round(picture.width * READABLE)}


def _row(finding: Finding) -> CriterionRow:
    figure = FIGURES[finding.unit]
    base, lora = ("" if side is None else figure.format(side) for side in (finding.base, finding.lora))
    if finding.gain is None:
        return CriterionRow(finding, base, lora, "", "")
    gain, ends = f"{finding.gain.value:+.3g}", f"{finding.gain.low:+.3g} to {finding.gain.high:+.3g}"
    return CriterionRow(finding, base, lora, gain, ends)


def _chart(losses: Curve, held_out: Curve) -> str | None:
    """The loss curves as a data: URI of an SVG; None when there is nothing to draw."""
    if not losses and not held_out:
        return None
    inked = ("xtick.color", "ytick.color", "axes.edgecolor", "axes.labelcolor", "text.color")
    style: dict[Any, Any] = {"svg.hashsalt": "sdlora", **dict.fromkeys(inked, CHART_INK)}
    buffer = io.BytesIO()
    # The SVG's ids are random without a salt. A figure of its own, not pyplot's: that one picks a backend by the display.
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        axes = figure.subplots()
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set(xlabel="step", ylabel="loss")
        _draw_training(axes, losses)
        if held_out:
            axes.plot(*_columns(held_out), color=HELD_OUT_COLOUR, marker="o", markersize=3, label="held-out")
        axes.legend(frameon=False)
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return data_uri("image/svg+xml", buffer.getvalue())


def _draw_training(axes: Any, losses: Curve) -> None:
    if not losses:
        return
    steps, values = _columns(losses)
    if len(values) < SMOOTHED_FROM:
        axes.plot(steps, values, color=TRAINING_COLOUR, label="training")
        return
    # The loss of one step says more about its timesteps than about the model; the mean of neighbours shows the course.
    window = len(values) // 20
    mean = np.convolve(values, np.full(window, 1 / window), mode="valid")
    first = (window - 1) // 2
    axes.plot(steps, values, color=TRAINING_COLOUR, alpha=0.25, linewidth=0.8)
    axes.plot(steps[first : first + len(mean)], mean, color=TRAINING_COLOUR, label=f"training, mean of {window}")


def _columns(curve: Curve) -> tuple[list[int], list[float]]:
    finite = [(step, loss) for step, loss in curve if isfinite(loss)]
    return [step for step, _ in finite], [loss for _, loss in finite]


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
