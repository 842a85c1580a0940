"""`sdlora retrain`: one run from images to a champion, done once, however often it is started, killed, or started twice.

SDLORA_SOAK is the number of kills.
"""

import json
import os
import random
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service import miniature
from service.artifacts.history import History
from service.artifacts.kinds import evaluation
from service.artifacts.notes import Attempt
from service.artifacts.publishing import list_artifacts
from service.exits import ExitCode
from service.settings.demo import DEMO_VARIABLES
from service.storage.local import LocalStore
from tests.integration.chain import End, finish, finish_killed, start
from tests.releases import aged

KILLS = int(os.environ.get("SDLORA_SOAK", "4"))
MODEL = "pixel-art"
VARIABLES = {
    "RUN_ID": "ours",
    "PROMOTE_MODEL": MODEL,
    "MODEL_BASE": "miniature",
    "DATA_PREP_SOURCE": "folder",
    "DATA_PREP_CAPTIONER": "sidecar",
    "DATA_PREP_VALIDATION_SHARE": "0.25",
    "TRAIN_PROFILE": "miniature",
    "TRAIN_MAX_STEPS": "2",
    "TRAIN_CHECKPOINT_EVERY": "1",
    "TRAIN_BATCH_SIZE": "2",
    "TRAIN_SAMPLES": "0",
    "TRAIN_VALIDATION_IMAGES": "2",
    "TRAIN_FRUITLESS_ATTEMPTS": "1000",
    "EVALUATE_STEPS": "1",
    "EVALUATE_VARIATIONS": "2",
    "EVALUATE_MAX_PROMPTS": "2",
    "EVALUATE_BLEED_PROMPTS": "0",
    # Two steps teach nothing: any LoRA that is not worse by far is promoted.
    "EVALUATE_LIVE_SHARE": "0",
    "EVALUATE_STYLE_GAIN": "-1000",
    "EVALUATE_ADHERENCE_MARGIN": "1000",
    "EVALUATE_HELD_OUT_GAIN": "-1000",
    "PRICE_PER_HOUR": "3600",
    "OMP_NUM_THREADS": "1",
}
NEVER = {"EVALUATE_STYLE_GAIN": "1000"}
"""No LoRA can come so near to the style."""


def with_images(folder: Path, count: int) -> dict[str, str]:
    """The first samples with captions beside them, as the source of a data set."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    for sample in sorted(miniature.SAMPLES.glob("*.png"))[:count]:
        shutil.copy(sample, images)  # with a time of its own, as in a fresh checkout
        (images / f"{sample.stem}.txt").write_text(f"8-bit illustration, a {sample.stem.replace('_', ' ')}")
    return VARIABLES | {"DATA_PREP_FOLDER": str(images)}


def store_of(folder: Path) -> LocalStore:
    return LocalStore(folder / "artifacts")


def history(folder: Path) -> History:
    return History.read(store_of(folder), MODEL)


def report_of(end: End, folder: Path) -> Path:
    """The folder of the report that the last line names."""
    return (folder / "artifacts" / end.events[-1]["page"]).parent


def trained_in(end: End) -> bool:
    return any(event["event"] == "attempt begins" for event in end.events)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, End]:
    """A first run, on twelve images."""
    folder = tmp_path_factory.mktemp("first")
    end = finish("retrain", folder, with_images(folder, 12) | {"OUTCOME_FILE": str(folder / "outcome")})
    assert end.code == ExitCode.DONE, end.events[-3:]
    return folder, end


def copied(first: tuple[Path, End], to: Path) -> Path:
    return Path(shutil.copytree(first[0], to / "copy"))


def test_the_first_run_promotes_and_ends_with_one_line_one_page_and_a_report(first: tuple[Path, End]) -> None:
    folder, end = first
    [entry] = history(folder).entries
    last, outcome = end.events[-1], json.loads((folder / "outcome").read_text())
    assert last["event"] == f"{MODEL}: {entry.lora} was promoted as the first champion, entry 1"
    assert (last["promoted"], last["decision"], last["lora"]) == (True, "promote", entry.lora)
    assert {**outcome, **{name: last[name] for name in ("promoted", "decision", "reason", "lora", "page")}} == outcome
    told = json.loads((report_of(end, folder) / "retraining.json").read_text())
    assert (told["entry"], told["evaluation"], told["champion"]) == (1, entry.evaluation, None)
    assert set(told["seconds"]) == {"data-prep", "train", "evaluate and promote"}
    assert told["price"] == pytest.approx(sum(told["seconds"].values()), abs=0.1)
    report, page = ((report_of(end, folder) / name).read_text() for name in ("report.md", "index.html"))
    assert report.startswith(f"# {last['event']}\n")
    for section in (
        "| Measurement |",
        "What changed in the data set",
        "| Stage | Time |",
        f"Price: {told['price']:.2f}",
    ):
        assert section in report
    assert page.index(last["event"]) < page.index("data:image/png") < page.index("What changed in the data set")


def test_with_unchanged_images_it_is_already_done_and_nothing_is_trained_or_judged(
    first: tuple[Path, End], tmp_path: Path
) -> None:
    folder = copied(first, tmp_path)
    before = sorted(stored.key for stored in store_of(folder).list(""))
    end = finish("retrain", folder, VARIABLES | {"DATA_PREP_FOLDER": str(first[0] / "images")})
    assert (end.code, end.events[-1]["event"]) == (ExitCode.DONE, "already done")
    assert end.events[-1]["page"] == first[1].events[-1]["page"]
    assert {event["event"] for event in end.events} <= {"already prepared", "already done"}
    assert sorted(stored.key for stored in store_of(folder).list("")) == before


def test_the_same_images_in_another_folder_with_other_times_are_unchanged(
    first: tuple[Path, End], tmp_path: Path
) -> None:
    folder = copied(first, tmp_path)
    end = finish("retrain", folder, with_images(tmp_path, 12))
    assert (end.code, end.events[-1]["event"]) == (ExitCode.DONE, "already done")
    assert end.events[-1]["page"] == first[1].events[-1]["page"]


def test_what_was_withdrawn_does_not_come_back_by_itself_and_prune_leaves_what_says_so(
    first: tuple[Path, End], tmp_path: Path
) -> None:
    folder = copied(first, tmp_path)
    withdrawn = {"RETIRE_LORAS": str(history(folder).entries[0].lora), "RETIRE_REASON": "not ours"}
    assert finish("retire", folder, VARIABLES | withdrawn).code == ExitCode.DONE
    everything = {"PRUNE_ALL_RUNS": "true", "PRUNE_DRY_RUN": "false"}
    aged(folder / "artifacts")
    assert finish("prune", folder, VARIABLES | everything).code == ExitCode.DONE
    assert finish("retrain", folder, with_images(first[0], 12)).events[-1]["event"] == "already done"
    assert history(folder).champion is None


def test_what_a_limit_has_ended_is_judged_and_goes_on_with_a_higher_limit(
    first: tuple[Path, End], tmp_path: Path
) -> None:
    variables = with_images(first[0], 12) | {"TRAIN_MAX_STEPS": "6"}
    assert finish_killed("retrain", tmp_path, variables, lambda _, line: '"checkpoint committed"' in line)
    [run] = (tmp_path / "artifacts" / "runs").glob(f"{MODEL}-*")
    earlier = Attempt(attempt="earlier", step=0, started=datetime(2026, 1, 1, tzinfo=UTC), seconds=36_000)
    (run / "attempts" / f"{earlier.name}.json").write_bytes(earlier.to_bytes())
    limited = variables | {"TRAIN_MAX_HOURS": "10"}
    capped = finish("retrain", tmp_path, limited)
    assert capped.code == ExitCode.DONE, capped.events[-3:]
    assert json.loads((report_of(capped, tmp_path) / "retraining.json").read_text())["seconds"]["train"] > 36_000
    assert "/capped/" in capped.events[-1]["lora"]
    again = finish("retrain", tmp_path, limited)
    assert (again.code, again.events[-1]["event"], trained_in(again)) == (ExitCode.DONE, "already done", False)
    whole = finish("retrain", tmp_path, variables)
    assert whole.code == ExitCode.DONE, whole.events[-3:]
    assert "/capped/" not in whole.events[-1]["lora"]
    assert [entry.lora for entry in history(tmp_path).entries] == [capped.events[-1]["lora"], whole.events[-1]["lora"]]


def test_ten_more_images_are_one_new_run_judged_against_the_champion_and_rejected_with_the_sentence_or_promoted(
    first: tuple[Path, End], tmp_path: Path
) -> None:
    folder = copied(first, tmp_path)
    [reigning] = history(folder).entries
    variables = with_images(folder, 22)
    worse = finish("retrain", folder, variables | NEVER)
    assert worse.code == ExitCode.REJECTED
    told = json.loads((report_of_rejected(folder) / "retraining.json").read_text())
    assert worse.last("failed")["error"] == told["reason"] != ""
    assert (told["entry"], told["champion"]) == (None, reigning.lora)
    assert history(folder).entries == (reigning,)
    assert finish("retrain", folder, variables | NEVER).events[-1]["event"] == "already done"

    # Another threshold: the same LoRA, judged anew.
    better = finish("retrain", folder, variables)
    assert better.code == ExitCode.DONE, better.events[-3:]
    assert not trained_in(better)
    assert len(history(folder).entries) == 2
    champion = history(folder).champion
    assert champion is not None
    assert (champion.lora, champion.previous) == (told["lora"], reigning.lora)
    found = evaluation.read(store_of(folder), str(champion.evaluation), folder / "work")
    assert found.champion is not None
    assert found.champion.lora == reigning.lora
    assert "10 added" in (report_of(better, folder) / "report.md").read_text()
    assert len(json.loads((report_of(better, folder) / "difference.json").read_text())["added"]) == 10
    assert "10 added" in (report_of(better, folder) / "index.html").read_text()


@pytest.mark.skipif(
    "SDLORA_SOAK" not in os.environ, reason="trains the whole profile: minutes; SDLORA_SOAK asks for it"
)
def test_with_shuffled_captions_it_ends_with_80_and_the_sentence_of_the_evaluation(tmp_path: Path) -> None:
    variables = with_images(tmp_path, 120)
    captions = sorted((tmp_path / "images").glob("*.txt"))
    for file, text in zip(captions, random.Random(1).sample([f.read_text() for f in captions], 120), strict=True):
        file.write_text(text)
    small = [name for name in VARIABLES if name.startswith(("TRAIN_", "EVALUATE_"))]
    variables = {name: value for name, value in variables.items() if name not in small} | {"TRAIN_PROFILE": "miniature"}
    of_demo = {name: value for name, value in DEMO_VARIABLES.items() if name.startswith("EVALUATE_")}
    end = finish("retrain", tmp_path, variables | of_demo)
    assert end.code == ExitCode.REJECTED, end.events[-3:]
    told = json.loads((report_of_rejected(tmp_path) / "retraining.json").read_text())
    assert end.last("failed")["error"] == told["reason"]
    assert history(tmp_path).entries == ()
    sys.stderr.write(f"{told['reason']}\n")


def report_of_rejected(folder: Path) -> Path:
    [path] = [
        folder / "artifacts" / path
        for path in list_artifacts(store_of(folder), "runs")
        if "/retraining/" in path and '"entry": null' in (folder / "artifacts" / path / "retraining.json").read_text()
    ]
    return path


def test_killed_at_any_moment_and_started_again_it_comes_to_the_same_registry(
    first: tuple[Path, End], tmp_path: Path
) -> None:
    variables = with_images(first[0], 12)
    dice, last = random.Random(7), len(first[1].events)
    named = ["published", "LoRA published", "decided", "registered"]
    killed, life = 0, 0
    while killed < KILLS:
        name, number = (named[killed] if killed < len(named) else ""), dice.randint(2, last)
        if finish_killed(
            "retrain",
            tmp_path / str(life),
            variables,
            lambda n, line, name=name, number=number: f'"{name}"' in line if name else n == number,
        ):
            killed += 1
        else:  # it had come to its end before that moment: another life
            same_as_undisturbed(tmp_path / str(life), first[0])
            life += 1
    end = finish("retrain", tmp_path / str(life), variables)
    assert end.code == ExitCode.DONE, end.events[-3:]
    same_as_undisturbed(tmp_path / str(life), first[0])
    sys.stderr.write(f"{killed} kills in {life + 1} lives\n")


def test_two_at_once_are_one_run_and_one_entry(first: tuple[Path, End], tmp_path: Path) -> None:
    variables = with_images(first[0], 12)
    both = [start("retrain", tmp_path, variables) for _ in range(2)]
    assert [running.wait().code for running in both] == [ExitCode.DONE] * 2
    same_as_undisturbed(tmp_path, first[0])


def same_as_undisturbed(folder: Path, undisturbed: Path) -> None:
    """One entry, of the same LoRA, and the same artifacts, but for what attempts leave under names of their own."""
    assert [(e.action, e.lora, e.version, e.evaluation) for e in history(folder).entries] == [
        (e.action, e.lora, e.version, e.evaluation) for e in history(undisturbed).entries
    ]

    def made(of: Path) -> list[str]:
        return [path for path in list_artifacts(store_of(of), "runs") if "/checkpoints/" not in path]

    assert made(folder) == made(undisturbed)
