"""The evaluation as an artifact: evaluation.json for programs, index.html for people. The same inputs give the same bytes."""

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from pydantic import BaseModel, ConfigDict

from service.evaluation.gate import Finding, Measurements, Outcome, Thresholds, examine
from service.evaluation.metrics import Interval
from service.templates import rendered

JSON_FILE = "evaluation.json"
PAGE_FILE = "index.html"
TEMPLATE = Path(__file__).with_name("report.html.jinja")
LARGEST_PNG = 4_000_000
SMOOTHED_FROM = 40
# Reads on a light and on a dark page; a picture cannot follow the page's colours.
CHART_INK = "#808080"
TRAINING_COLOUR = "#4c8dd6"
HELD_OUT_COLOUR = "#e08a2e"

Curve = Sequence[tuple[int, float]]
"""(optimizer step, loss), by step."""


@dataclass(frozen=True)
class Pair:
    """One measurement of both sides."""

    base: float
    lora: float


@dataclass(frozen=True)
class Counts:
    """How much was measured: prompts, images of each side per prompt, held-out reference images."""

    prompts: int
    variations: int
    held_out_images: int


class Evaluation(BaseModel):
    """All that an evaluation found, and what it took to find it. Non-finite figures are the strings "NaN", "Infinity"."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    schema_version: Literal[1] = 1
    decision: Outcome
    reason: str
    measurements: Measurements
    thresholds: Thresholds
    confidence: float
    style_distance: Pair
    adherence: Pair
    held_out_loss: Pair
    counts: Counts
    prompts: list[str]
    lora: str
    dataset: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A line of the page's table."""

    name: str
    explanation: str
    base: str
    lora: str
    gain: str
    interval: str
    needed: str
    finding: Finding


def write_report(
    folder: Path, evaluation: Evaluation, grid: Image.Image, losses: Curve = (), held_out: Curve = ()
) -> None:
    """Writes evaluation.json and index.html, one page that needs no other file and no network, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    text = evaluation.model_dump_json(indent=2) + "\n"
    (folder / JSON_FILE).write_text(text, encoding="utf-8")
    (folder / PAGE_FILE).write_text(_page(evaluation, grid, losses, held_out), encoding="utf-8")


def _page(evaluation: Evaluation, grid: Image.Image, losses: Curve, held_out: Curve) -> str:
    return rendered(
        TEMPLATE,
        evaluation=evaluation,
        confidence=f"{evaluation.confidence:.3g}",
        rows=_rows(evaluation),
        grid=_picture(grid),
        chart=_chart(losses, held_out),
        settings={name: _plain(value) for name, value in sorted(evaluation.settings.items())},
    )


def _rows(evaluation: Evaluation) -> list[Row]:
    measured, thresholds = evaluation.measurements, evaluation.thresholds
    findings = examine(measured, thresholds)
    return [
        Row(
            "LoRA is live",
            "Share of the pairs, same prompt and same seed, in which the LoRA visibly changes the image.",
            "",
            f"{measured.liveness:.1%}",
            "",
            "",
            f"at least {thresholds.live_share:.0%}",
            findings.liveness,
        ),
        Row(
            "Distance to the style",
            "Kernel distance (KID) between the features of the generated and of the held-out images; 0 is the same style.",
            *_sides(evaluation.style_distance, measured.style_gain),
            "interval above 0",
            findings.style,
        ),
        Row(
            "Following the prompt",
            "CLIPScore, 0 to 100: does the image show what the prompt asks for, its style phrase left out?",
            *_sides(evaluation.adherence, measured.adherence_gain),
            f"interval above {-thresholds.adherence_margin:+.3g}",
            findings.adherence,
        ),
        Row(
            "Held-out loss",
            "How well the model predicts the noise in images that it never saw, at fixed timesteps and noise.",
            *_sides(evaluation.held_out_loss, measured.held_out_gain),
            "interval not wholly below 0",
            findings.held_out,
        ),
    ]


def _sides(pair: Pair, gain: Interval) -> tuple[str, str, str, str]:
    ends = f"{gain.low:+.3g} to {gain.high:+.3g}"
    return f"{pair.base:.4g}", f"{pair.lora:.4g}", f"{gain.value:+.3g}", ends


def _picture(image: Image.Image) -> str:
    """The picture as a data: URI; PNG, or JPEG where photographs would make the page too heavy to open."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    if buffer.tell() <= LARGEST_PNG:
        return _data_uri("image/png", buffer.getvalue())
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=90, subsampling=0)
    return _data_uri("image/jpeg", buffer.getvalue())


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
    return _data_uri("image/svg+xml", buffer.getvalue())


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


def _data_uri(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
