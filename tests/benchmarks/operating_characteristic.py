"""How often does the gate promote a good, a useless or a harmful LoRA, and do its intervals cover what they claim?

A pool is what `evaluate` measured of one LoRA. The gate is asked again and again about prompts that are drawn from the pool,
with replacement, each with its pictures, its scores and its held-out image: so the pool is the population, and what is true of
it is known. Nothing is drawn or measured again, so a thousand decisions take minutes.

    npm pack emoji-datasource-google@16.0.0
    python -m tests.benchmarks.operating_characteristic emoji-datasource-google-16.0.0.tgz [FOLDER]

Makes the pools in the folder where they are not there yet (see `pools.py`), prints the table of the README and writes
operating-characteristic.svg beside them.
"""

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import binomtest

from service.artifacts.kinds.evaluation import Finding, Interval, Outcome
from service.artifacts.kinds.measurements import Measured, Measurements
from service.evaluation.gate import decide, examine
from service.settings.evaluate import EvaluateSettings

PROMPTS = (8, 16, 32, 64)
RESAMPLES = 1000
OUTCOMES: tuple[Outcome, ...] = ("promote", "hold", "reject")
OF_HELD_OUT = "held_out_"
WITHOUT_STYLE = "_without_style"


class Share(NamedTuple):
    """A share of trials, 0 to 1, and its exact 95 % interval (Clopper and Pearson)."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, count: int, trials: int) -> "Share":
        ends = binomtest(count, trials).proportion_ci(confidence_level=0.95, method="exact")
        return cls(count / trials, float(ends.low), float(ends.high))

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} ({100 * self.low:.1f}–{100 * self.high:.1f})"


@dataclass(frozen=True)
class Row:
    """What the gate said of one LoRA with so many prompts. covered: by criterion, how often its interval held the truth."""

    lora: str
    prompts: int
    said: Mapping[Outcome, Share]
    covered: Mapping[str, Share]


def resampled(pool: Measurements, prompts: int, rng: np.random.Generator) -> Measurements:
    """As many prompts as asked for, of those in the pool, each as often as it is drawn and then another prompt each time.

    Held-out images come with the prompts, which are their captions, where the pool has as many; else they are drawn apart.
    """
    names = list(dict.fromkeys(pool.of.prompts))
    chosen = rng.integers(len(names), size=prompts)
    paired = len(names) == len(pool.of.held_out)
    held_out = chosen if paired else rng.integers(len(pool.of.held_out), size=prompts)
    members = {name: [i for i, prompt in enumerate(pool.of.prompts) if prompt == name] for name in names}
    pictures = [picture for number in chosen for picture in members[names[number]]]
    arrays = {}
    for name, array in pool.arrays.items():
        if name.endswith(WITHOUT_STYLE):
            arrays[name] = array  # of other pictures, and told only
        else:
            arrays[name] = array[held_out if is_of_held_out(name) else pictures]
    drawn = [f"{draw} {names[number]}" for draw, number in enumerate(chosen) for _ in members[names[number]]]
    return Measurements(
        Measured(
            images=pool.of.images,
            prompts=drawn,
            variations=pool.of.variations,
            held_out=[pool.of.held_out[number] for number in held_out],
        ),
        arrays,
    )


def is_of_held_out(name: str) -> bool:
    """Whether an array of measurements counts held-out images, rather than pictures."""
    return name.startswith(OF_HELD_OUT) or name.endswith("held_out_losses")


def characteristic(
    pools: Mapping[str, Measurements],
    sizes: Sequence[int] = PROMPTS,
    resamples: int = RESAMPLES,
    settings: EvaluateSettings | None = None,
    seed: int = 0,
) -> list[Row]:
    """A row for each pool and number of prompts."""
    asked = settings or EvaluateSettings(model_base="miniature")
    rng = np.random.default_rng(seed)
    rows = []
    for lora, pool in pools.items():
        for prompts in sizes:
            trials = [examine(resampled(pool, prompts, rng), asked) for _ in range(resamples)]
            outcomes = [decide(findings).outcome for findings in trials]
            said = {outcome: Share.of(outcomes.count(outcome), resamples) for outcome in OUTCOMES}
            rows.append(Row(lora, prompts, said, coverage(trials)))
    return rows


def coverage(trials: Sequence[Sequence[Finding]]) -> dict[str, Share]:
    """By criterion, the share of the intervals that hold the mean of all estimates: what the gain is for the pool.

    Without bleed, whose pictures are not drawn again.
    """
    gains: defaultdict[str, list[Interval]] = defaultdict(list)
    for findings in trials:
        for finding in findings:
            if finding.gain is not None and finding.name != "bleed":
                gains[finding.name].append(finding.gain)
    found = {}
    for name, intervals in gains.items():
        truth = float(np.mean([gain.value for gain in intervals]))
        found[name] = Share.of(sum(gain.low <= truth <= gain.high for gain in intervals), len(intervals))
    return found


def table(rows: Sequence[Row]) -> str:
    """Markdown: how often each outcome, and how often the intervals of what decides cover; percent, with 95 % intervals."""
    judged = [name for name in rows[0].covered if name in ("style", "adherence", "held_out")]
    heads = ["LoRA", "prompts", *OUTCOMES, *(f"{name} covers" for name in judged)]
    lines = [f"| {' | '.join(heads)} |", "|---|---:|" + "---|" * (len(heads) - 2)]
    for row in rows:
        cells = [str(row.said[outcome]) for outcome in OUTCOMES] + [str(row.covered[name]) for name in judged]
        lines.append(f"| {row.lora} | {row.prompts} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def plot(rows: Sequence[Row], file: Path) -> None:
    """Writes, as an SVG, how often each LoRA is promoted by the number of prompts, with intervals."""
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    for lora in dict.fromkeys(row.lora for row in rows):
        mine = [row for row in rows if row.lora == lora]
        shares = [row.said["promote"] for row in mine]
        beyond = [[share.value - share.low for share in shares], [share.high - share.value for share in shares]]
        axes.errorbar(
            [row.prompts for row in mine],
            [share.value for share in shares],
            yerr=beyond,
            marker="o",
            capsize=3,
            label=lora,
        )
    axes.set_xscale("log", base=2)
    sizes = sorted({row.prompts for row in rows})
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set(xlabel="prompts", ylabel="promoted", ylim=(-0.03, 1.03))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, format="svg", metadata={"Date": None})


def main(package: Path, folder: Path) -> None:
    from tests.benchmarks.pools import pools_in  # loads the models' libraries

    rows = characteristic(pools_in(folder, package))
    sys.stdout.write(table(rows))
    plot(rows, folder / "operating-characteristic.svg")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else ".cache/benchmarks/operating-characteristic"))
