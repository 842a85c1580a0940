"""Does the gate say what is true of LoRAs of known quality? Each is really trained on the miniature, on three seeds.

    npm pack openmoji@17.0.0
    python -m tests.benchmarks.verdicts openmoji-17.0.0.tgz [FOLDER]

The other styles, beside the samples of the miniature, are the icons of OpenMoji (CC BY-SA 4.0), in colour and as line
drawings; `rsvg-convert` draws them (Debian: librsvg2-bin). They draw the subjects otherwise than the miniature learned them,
and in the steps of its profile a LoRA learns their outlines and loses the subjects: one sees it at once. All is judged by the
thresholds that are set by default, but for what was learned by heart: there the values to begin with are set that the README
names for diversity, memorisation and copies.

Prints the table of the README; runs in about an hour on one core, and what is finished in the folder is not done again.
"""

import csv
import io
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from service.artifacts.fetching import fetch
from service.artifacts.kinds.dataset import read_metadata
from service.artifacts.kinds.evaluation import Evaluation, Outcome, read_json
from service.artifacts.publishing import exists
from service.artifacts.runs import Run
from service.jobs.data_prep import data_prep
from service.jobs.evaluate import evaluate
from service.jobs.train import train
from service.logs import configure_logs
from service.miniature.corpus import SUBJECTS_FILE
from service.settings.data_prep import DataPrepSettings
from service.settings.evaluate import EvaluateSettings
from service.settings.train import TrainSettings
from service.storage.opening import open_store
from tests import changed_dataset, changed_lora

SEEDS = (0, 1, 2)
FEW = 6
"""Held-out images of which nothing certain can be said."""
LEARNED_BY_HEART = 8
TOO_LONG = 5
"""Times the steps of the profile."""
ICONS = 124
"""As many as there are samples of the miniature."""
THRESHOLDS = {"diversity_margin": 0.2, "memorised_share": 0.01, "copies": 0}


@dataclass(frozen=True)
class Row:
    """What the gate said of one LoRA, by seed. right: the outcomes that are true of it."""

    lora: str
    right: tuple[Outcome, ...]
    found: tuple[Evaluation, ...]

    def __str__(self) -> str:
        said = " · ".join(evaluation.decision for evaluation in self.found)
        against = {name: None for evaluation in self.found for name in against_it(evaluation)}
        return f"| {self.lora} | {' or '.join(self.right)} | {said} | {', '.join(against)} |"


def against_it(evaluation: Evaluation) -> list[str]:
    """The criteria that stand between the LoRA and its promotion."""
    return [finding.name for finding in evaluation.findings if finding.outcome in ("hold", "reject")]


class Bench:
    """The store of the benchmark, and what is made in it."""

    def __init__(self, folder: Path) -> None:
        self.work_dir = folder / "work"
        self.places = {"artifacts_uri": str(folder / "artifacts"), "work_dir": self.work_dir, "model_base": "miniature"}
        self.store = open_store(str(folder / "artifacts"))

    def dataset(self, folder: str, name: str, style: str, share: float) -> str:
        data_prep(
            DataPrepSettings(
                source="folder",
                folder=folder,
                name=name,
                style=style,
                validation_share=share,
                run_id=name,
                **self.places,
            )
        )
        return Run(self.store, name).dataset()

    def changed(self, dataset: str, name: str, change: changed_dataset.Change) -> str:
        return changed_dataset.publish_changed(self.store, dataset, name, change, self.work_dir)

    def trained(self, name: str, dataset: str, seed: int, longer: int = 1) -> str:
        """The run of a training by the miniature's profile."""
        run_id = f"{name}-{seed}"
        if not exists(self.store, f"runs/{run_id}/lora"):
            steps = {"max_steps": longer * TrainSettings(profile="miniature", model_base="miniature").max_steps}
            train(TrainSettings(profile="miniature", run_id=run_id, dataset=dataset, seed=seed, **steps, **self.places))
        return run_id

    def without_effect(self, of: str, name: str, seed: int) -> str:
        run_id = f"{name}-{seed}"
        if not exists(self.store, f"runs/{run_id}/lora"):
            changed_lora.publish_changed(self.store, f"runs/{of}/lora", run_id, changed_lora.scaled(0), self.work_dir)
        return run_id

    def judged(self, run_id: str, dataset: str, seed: int, **other: object) -> Evaluation:
        """By the held-out images of `dataset`, as `sdlora demo` draws."""
        drawing = {
            "steps": 20,
            "guidance": 2,
            "variations": 2,
            "max_prompts": 24,
            "batch_size": 24,
            "seed": 1000 + seed,
        }
        settings = {**drawing, **self.places, **other}
        path = evaluate(EvaluateSettings(run_id=run_id, dataset=dataset, **settings))
        return read_json(fetch(self.store, path, self.work_dir))

    def held_out(self, dataset: str) -> int:
        return len(read_metadata(fetch(self.store, dataset, self.work_dir), "validation"))


def draw_icons(package: Path, kind: str, folder: Path) -> None:
    """Writes the icons of subjects of the miniature, each with its name as caption. kind: `color`, or `black` for lines."""
    with SUBJECTS_FILE.open(newline="", encoding="utf-8") as lines:
        subjects = [row["name"] for row in csv.DictReader(lines)]
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(package) as archive:
        table = archive.extractfile("package/data/openmoji.csv")
        assert table is not None, "every release has it"
        codes = {row["annotation"]: row["hexcode"] for row in csv.DictReader(io.TextIOWrapper(table, "utf-8"))}
        for name in sorted(set(subjects) & codes.keys())[:ICONS]:
            file = folder / f"{name}.png"
            icon = archive.extractfile(f"package/{kind}/svg/{codes[name]}.svg")
            assert icon is not None, name
            size = ["--width", "64", "--height", "64", "--background-color", "white"]
            subprocess.run(["rsvg-convert", *size, "--output", file], input=icon.read(), check=True)
            file.with_suffix(".txt").write_text(name + "\n", encoding="utf-8")


def rows(bench: Bench, outlined_icons: Path, line_drawings: Path, seeds: Sequence[int] = SEEDS) -> Iterator[Row]:
    """What the gate says of each LoRA, in the order of the table; the longest training comes last."""
    pixels = bench.dataset("miniature", "pixels", "8-bit illustration", share=0.2)
    outlined = bench.dataset(str(outlined_icons), "outlined", "outlined icon", share=0.2)
    lines = bench.dataset(str(line_drawings), "lines", "line drawing", share=0.2)

    def judged(runs: Sequence[str], dataset: str, **other: object) -> tuple[Evaluation, ...]:
        return tuple(bench.judged(run, dataset, seed, **other) for run, seed in zip(runs, seeds, strict=True))

    good = [bench.trained("good", pixels, seed) for seed in seeds]
    yield Row("trained well, 8-bit", ("promote",), judged(good, pixels))
    nothing = [bench.without_effect(of, "nothing", seed) for of, seed in zip(good, seeds, strict=True)]
    yield Row("without effect", ("reject",), judged(nothing, pixels))
    icons = [bench.trained("outlined", outlined, seed) for seed in seeds]
    yield Row("outlines learned, subjects lost", ("reject",), judged(icons, outlined))
    drawn = [bench.trained("lines", lines, seed) for seed in seeds]
    yield Row("the same, line drawings", ("reject",), judged(drawn, lines))
    yield Row("trained on another style", ("reject",), judged(drawn, pixels))
    shifted = bench.changed(pixels, "shifted", changed_dataset.other_captions)
    mixed = [bench.trained("shifted", shifted, seed) for seed in seeds]
    yield Row("trained on captions of other images", ("hold", "reject"), judged(mixed, pixels))
    few = bench.changed(pixels, "few", changed_dataset.only(FEW, "validation"))
    of_few = judged(good, few)
    yield Row(f"trained well, {FEW} held-out images", ("hold",), of_few)
    enough = as_many_as_asked_for(bench, pixels, good, of_few)
    yield Row("the same, as many as it asked for", ("promote",), enough)
    eight = bench.changed(pixels, "eight", changed_dataset.only(LEARNED_BY_HEART, "train"))
    by_heart = [bench.trained("eight", eight, seed, longer=TOO_LONG) for seed in seeds]
    yield Row(
        f"{TOO_LONG} times too long on {LEARNED_BY_HEART} images", ("reject",), judged(by_heart, pixels, **THRESHOLDS)
    )


def as_many_as_asked_for(
    bench: Bench, dataset: str, runs: Sequence[str], held: Sequence[Evaluation]
) -> tuple[Evaluation, ...]:
    """The evaluations of what was held, by as many more held-out images as it said."""
    found = []
    for seed, (run, evaluation) in enumerate(zip(runs, held, strict=True)):
        asked = [finding.missing.held_out_images or 0 for finding in evaluation.findings if finding.missing]
        count = min(FEW + max(asked, default=0), bench.held_out(dataset))
        enough = bench.changed(dataset, f"enough-{seed}", changed_dataset.only(count, "validation"))
        found.append(bench.judged(run, enough, seed, max_prompts=count))
        sys.stdout.write(f"{run}: {FEW} held-out images, {asked} more asked for, judged by {count}\n")
    return tuple(found)


def main(package: Path, folder: Path) -> None:
    configure_logs("json")
    kinds = {"color": folder / "outlined", "black": folder / "lines"}
    for kind, icons in kinds.items():
        draw_icons(package, kind, icons)
    sys.stdout.write("| LoRA | true | the gate said, by seed | against it |\n|---|---|---|---|\n")
    for row in rows(Bench(folder), *kinds.values()):
        sys.stdout.write(f"{row}\n")
        sys.stdout.flush()
        for evaluation in row.found:
            sys.stderr.write(f"{row.lora}: {evaluation.reason}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else ".cache/benchmarks/verdicts"))
