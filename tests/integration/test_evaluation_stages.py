"""Drawing, measuring and deciding are three works: what a setting does not decide is not done again for it."""

import json
import re
import shutil
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from PIL import Image

from service import miniature
from service.artifacts.fetching import fetch
from service.artifacts.history import History, append
from service.artifacts.kinds import evaluation, measurements
from service.artifacts.kinds.dataset import read_metadata
from service.artifacts.kinds.registry import Entry
from service.artifacts.kinds.votes import Vote, Votes
from service.artifacts.notes import Complete
from service.artifacts.publishing import list_artifacts, read_manifest
from service.diffusion.drawing import comparison
from service.evaluation import judges
from service.evaluation.blind import lora_is_left
from service.evaluation.gate import CRITERIA, criteria
from service.evaluation.judges import LoadedJudges
from service.exits import BadConfiguration, BadData, MissingInput, Rejected
from service.jobs.evaluate import evaluate
from service.jobs.infer import infer
from service.jobs.promote import promote
from service.settings.demo import DEMO_VARIABLES
from service.settings.evaluate import EvaluateSettings
from service.settings.infer import InferSettings
from service.settings.promote import PromoteSettings
from service.storage.interface import NotFound, ObjectStore
from service.storage.opening import open_store
from tests.changed_lora import publish_changed, scaled
from tests.integration.chain import SMALL


@pytest.fixture(scope="module")
def copy(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(trained, tmp_path_factory.mktemp("stages") / "run"))


@pytest.fixture
def store(copy: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """A trained run that was evaluated once."""
    for name, value in (DEMO_VARIABLES | SMALL).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ARTIFACTS_URI", str(copy / "artifacts"))
    monkeypatch.setenv("WORK_DIR", str(copy / "work"))
    evaluate(EvaluateSettings())
    return open_store(str(copy / "artifacts"))


def refuse(*_: Any, **__: Any) -> NoReturn:
    raise AssertionError("this is not to be done again")


@pytest.fixture
def without_drawing(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    monkeypatch.setattr(comparison, "family_of", refuse)
    return store


@pytest.fixture
def without_models(without_drawing: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    monkeypatch.setattr(judges, "family_of", refuse)
    for name in ("style_features", "clip_scores", "clip_embeddings", "held_out_losses"):
        monkeypatch.setattr(LoadedJudges, name, refuse)
    return without_drawing


def read(store: ObjectStore, path: str) -> evaluation.Evaluation:
    return evaluation.read_json(fetch(store, path, Path("unused")))


def made(store: ObjectStore) -> list[str]:
    return list_artifacts(store, "runs/demo")


def test_whether_an_unpromoted_lora_is_a_failure_changes_nothing_that_is_stored(without_models: ObjectStore) -> None:
    unpromoted = {"style_gain": 9.0}
    evaluate(EvaluateSettings(**unpromoted))
    before = made(without_models)
    with pytest.raises(Rejected, match="the style comes no nearer"):
        evaluate(EvaluateSettings(fail_unless_promoted=True, **unpromoted))
    assert made(without_models) == before


@pytest.mark.parametrize(
    "changed",
    [{"confidence": 0.9}, {"live_share": 0.0}, {"adherence_margin": 50.0}, {"style_gain": -9.0}, {"copies": 9}],
)
def test_another_threshold_or_confidence_decides_anew_from_what_was_measured_without_a_model(
    changed: dict[str, float], without_models: ObjectStore
) -> None:
    before = read(without_models, evaluate(EvaluateSettings()))
    again = read(without_models, evaluate(EvaluateSettings(**changed)))
    assert again.measurements == before.measurements
    assert [(one.base, one.lora) for one in again.findings] == [(one.base, one.lora) for one in before.findings]
    assert again.settings.items() >= changed.items()
    assert again != before


def test_another_clip_measures_anew_the_pictures_that_are_stored(without_drawing: ObjectStore, tmp_path: Path) -> None:
    shutil.copytree(miniature.CLIP, tmp_path / "clip")
    before = read(without_drawing, evaluate(EvaluateSettings()))
    again = read(without_drawing, evaluate(EvaluateSettings(model_clip=str(tmp_path / "clip"))))
    assert again.measurements != before.measurements
    assert again.findings == before.findings, "it is the same CLIP in another place"


def test_votes_that_the_page_asked_for_are_a_criterion_more_and_nothing_is_drawn_or_measured_for_it(
    without_models: ObjectStore, tmp_path: Path
) -> None:
    path = evaluate(EvaluateSettings())
    before, page = read(without_models, path), fetch(without_models, path, Path("unused")) / "compare.html"
    told = re.search(r'data-images="([^"]+)" data-version="([^"]+)"', page.read_text(encoding="utf-8"))
    assert told is not None
    images, version = told.groups()
    assert read_manifest(without_models, images).version == version
    against = [Vote(picture=number, chosen="right" if lora_is_left(version, number) else "left") for number in range(4)]
    file = tmp_path / "votes.json"
    file.write_bytes(Votes(images=images, version=version, votes=against).to_bytes())
    voted_at = evaluate(EvaluateSettings(votes=[str(file)]))
    voted = read(without_models, voted_at)
    assert voted.measurements == before.measurements
    assert voted.findings[:-1] == before.findings
    assert (voted.findings[-1].name, voted.findings[-1].base, voted.findings[-1].lora) == ("votes", 1.0, 0.0)
    kept = fetch(without_models, voted_at, Path("unused")) / "votes" / "0.json"
    assert kept.read_bytes() == file.read_bytes()
    moved = shutil.move(file, tmp_path / "moved.json")
    assert evaluate(EvaluateSettings(votes=[str(moved)])) == voted_at, "by what is in it, not by its name"
    assert evaluate(EvaluateSettings()) == path


def test_votes_that_cannot_be_counted_end_the_evaluation_in_one_line_and_nothing_is_published(
    without_models: ObjectStore, tmp_path: Path
) -> None:
    before = made(without_models)
    file, other = tmp_path / "votes.json", tmp_path / "other.json"
    file.write_bytes(Votes(images="runs/x/images/1", version="0" * 16, votes=[]).to_bytes())
    shutil.copy(file, other)
    with pytest.raises(BadConfiguration, match="on runs/x/images/1 in version 0000"):
        evaluate(EvaluateSettings(votes=[str(file)]))
    with pytest.raises(BadConfiguration, match=r"other\.json twice"):
        evaluate(EvaluateSettings(votes=[str(file), str(other)]))
    file.write_text("{")
    with pytest.raises(BadData, match=r"votes\.json is no JSON"):
        evaluate(EvaluateSettings(votes=[str(file)]))
    with pytest.raises(MissingInput, match=r"EVALUATE_VOTES=nowhere\.json"):
        evaluate(EvaluateSettings(votes=["nowhere.json"]))
    assert made(without_models) == before


def test_an_evaluation_names_the_lora_the_data_set_and_what_it_was_measured_from(store: ObjectStore) -> None:
    path = evaluate(EvaluateSettings())
    lora, dataset, measured = read_manifest(store, path).parents
    assert (lora, dataset, measured) == (
        read(store, path).lora,
        read(store, path).dataset,
        read(store, path).measurements,
    )
    images = read_manifest(store, measured).parents[-1]
    assert read_manifest(store, images).parents == [lora]
    assert [read_manifest(store, one).kind for one in (lora, dataset, measured, images)] == [
        "lora",
        "dataset",
        "measurements",
        "images",
    ]


def test_the_measurements_hold_a_figure_for_each_picture_and_each_held_out_image(store: ObjectStore) -> None:
    path = read(store, evaluate(EvaluateSettings())).measurements
    assert path is not None
    found = measurements.read_arrays(fetch(store, path, Path("unused")))
    pictures, held_out = len(found.of.prompts), len(found.of.held_out)
    assert pictures == 4
    shapes = {name: array.shape for name, array in found.arrays.items()}
    assert shapes["base_clip_scores"] == shapes["pixel_differences"] == (pictures,)
    assert shapes["lora_features"] == (pictures, 1280)
    assert shapes["base_held_out_losses"] == shapes["held_out_training_cosines"] == (held_out,)
    assert shapes["lora_contrasts"] == shapes["lora_look_distances"] == shapes["lora_nearest_training"] == (pictures,)
    assert shapes["lora_embeddings"][0] == pictures
    assert all(np.isfinite(array).all() for array in found.arrays.values())


def test_every_measurement_has_figures_and_stands_on_both_pages_with_the_nearest_training_images(
    store: ObjectStore,
) -> None:
    folder = fetch(store, evaluate(EvaluateSettings()), Path("unused"))
    found = evaluation.read_json(folder)
    assert [one.name for one in found.findings] == [criterion.name for criterion in CRITERIA]
    assert all(one.lora is not None for one in found.findings)
    assert {one.name for one in found.findings if one.outcome is None} == {
        "cmmd", "similarity", "bleed", "diversity", "memorisation", "copies",
    }  # fmt: skip
    assert len(found.nearest) == found.counts.prompts
    for page in ("index.html", "report.md"):
        text = (folder / page).read_text(encoding="utf-8")
        assert all(one.title in text for one in found.findings)
        assert "Nearest training images" in text


def test_the_style_phrase_is_in_no_prompt_of_the_pictures_that_tell_whether_it_bleeds(store: ObjectStore) -> None:
    measured = read(store, evaluate(EvaluateSettings())).measurements
    assert measured is not None
    *_, prompted, unprompted = read_manifest(store, measured).parents
    told = [prompts_of(fetch(store, images, Path("unused")) / "lora") for images in (prompted, unprompted)]
    assert all(prompt.startswith("8-bit illustration, ") for prompt in told[0])
    assert len(told[1]) == 2
    assert not any("8-bit" in prompt for prompt in told[1])


def prompts_of(folder: Path) -> list[str]:
    return [json.loads(Image.open(file).text["sdlora"])["prompt"] for file in sorted(folder.glob("*.png"))]  # type: ignore[attr-defined]


def test_without_bleed_nothing_is_drawn_for_it(without_drawing: ObjectStore) -> None:
    found = read(without_drawing, evaluate(EvaluateSettings(bleed_prompts=0)))
    assert found.finding("bleed").lora is None


def crown(store: ObjectStore, model: str, lora: str, scale: float = 1.0) -> evaluation.Champion:
    version = read_manifest(store, lora).version
    append(store, History.read(store, model), Entry(lora=lora, version=version, scale=scale))
    return evaluation.Champion(lora=lora, version=version, scale=scale)


def test_another_champion_is_drawn_alone_at_its_strength_and_the_lora_measured_against_it(
    store: ObjectStore, tmp_path: Path
) -> None:
    before = read(store, evaluate(EvaluateSettings()))
    publish_changed(store, "runs/demo/lora", "rival", scaled(0.5), tmp_path)
    champion = crown(store, "with-rival", "runs/rival/lora", scale=0.8)
    path = evaluate(EvaluateSettings(champion="with-rival"))
    against = read(store, path)
    assert against.champion == champion
    assert [one.name for one in against.findings] == [one.name for one in criteria(champion=True)]
    assert against.findings[: len(CRITERIA)] == before.findings
    assert against.measurements is not None
    assert before.measurements is not None
    of, of_before = (read_measured(store, one) for one in (against.measurements, before.measurements))
    assert of.images == of_before.images, "what was drawn is not drawn again"
    assert of.champion_images is not None
    drawn = fetch(store, of.champion_images, Path("unused"))
    assert not (drawn / "base").exists()
    pictures = sorted((drawn / "lora").glob("*.png"))
    assert len(pictures) == len(of.prompts)
    told = json.loads(Image.open(pictures[0]).text["sdlora"])  # type: ignore[attr-defined]
    assert (told["lora"], told["lora_scale"]) == ("runs/rival/lora", 0.8)
    page = (fetch(store, path, Path("unused")) / "index.html").read_text(encoding="utf-8")
    assert "Champion above LoRA" in page
    assert evaluate(EvaluateSettings(champion="with-rival")) == path


def read_measured(store: ObjectStore, path: str) -> measurements.Measured:
    return measurements.read_arrays(fetch(store, path, Path("unused"))).of


def test_against_itself_a_lora_is_not_measured_and_the_champion_named_all_the_same(without_models: ObjectStore) -> None:
    before = evaluate(EvaluateSettings())
    assert evaluate(EvaluateSettings(champion="without-one")) == before
    assert read(without_models, before).champion is None
    champion = crown(without_models, "with-itself", "runs/demo/lora")
    against = read(without_models, evaluate(EvaluateSettings(champion="with-itself")))
    assert against.champion == champion
    assert against.findings == read(without_models, before).findings


def test_against_itself_at_another_strength_a_lora_is_measured(store: ObjectStore) -> None:
    crown(store, "weaker", "runs/demo/lora", scale=0.5)
    found = read(store, evaluate(EvaluateSettings(champion="weaker")))
    assert [one.name for one in found.findings] == [one.name for one in criteria(champion=True)]
    at_its_own = read(store, evaluate(EvaluateSettings(champion="weaker", lora="registry:weaker")))
    assert at_its_own.scale == 0.5
    assert [one.name for one in at_its_own.findings] == [one.name for one in CRITERIA]


def test_a_champion_whose_lora_is_gone_ends_the_evaluation_with_its_path_and_nothing_published(
    without_models: ObjectStore,
) -> None:
    entry = Entry(lora="runs/gone/lora", version="0" * 16)
    append(without_models, History.read(without_models, "with-none"), entry)
    before = made(without_models)
    with pytest.raises(NotFound, match="runs/gone/lora"):
        evaluate(EvaluateSettings(champion="with-none"))
    assert made(without_models) == before


def test_what_was_evaluated_is_promoted_and_drawn_with_by_the_name_of_its_model(store: ObjectStore) -> None:
    path = evaluate(EvaluateSettings())
    key = promote(PromoteSettings(model="pixels", evaluation=path, force="whatever so few steps have taught it"))
    entry = Entry.from_bytes(store.get(key), key)
    step = Complete.read(store, "demo").of_step
    assert (entry.lora, entry.evaluation, entry.checkpoint) == ("runs/demo/lora", path, step)
    images = infer(InferSettings(lora="registry:pixels"))
    assert images == infer(InferSettings())
    assert read_manifest(store, images).settings["lora_version"] == entry.version


def test_of_several_strengths_half_of_the_prompts_choose_one_and_the_others_decide_and_promote_it(
    store: ObjectStore,
) -> None:
    strengths: dict[str, Any] = {"scales": [0.6, 1.4], "max_prompts": 6, "variations": 1}
    path = evaluate(EvaluateSettings(**strengths))
    found = read(store, path)
    assert [one.scale for one in found.candidates] == [0.6, 1.4]
    assert found.scale in (0.6, 1.4)
    drawn = [fetch(store, one.images, Path("unused")) / "lora" for one in found.candidates]
    choosing = prompts_of(drawn[0])
    assert prompts_of(drawn[1]) == choosing
    assert not set(choosing) & set(found.prompts)
    assert (len(choosing), len(found.prompts)) == (2, 3)
    assert found.measurements is not None
    captions = captions_of_held_out(store, found)
    assert not {captions[name] for name in read_measured(store, found.measurements).held_out} & set(choosing)
    page = (fetch(store, path, Path("unused")) / "index.html").read_text(encoding="utf-8")
    assert "Strength of the LoRA" in page
    laxer = read(store, evaluate(EvaluateSettings(**strengths, adherence_margin=50.0)))
    assert laxer.measurements != found.measurements, "the margin is what a strength was chosen by"
    key = promote(PromoteSettings(model="strengths", evaluation=path, force="whatever so few steps have taught it"))
    assert Entry.from_bytes(store.get(key), key).scale == found.scale
    images = infer(InferSettings(lora="registry:strengths", prompts=["a boat"]))
    assert read_manifest(store, images).settings["lora_scale"] == found.scale


def captions_of_held_out(store: ObjectStore, found: evaluation.Evaluation) -> dict[str, str]:
    rows = read_metadata(fetch(store, found.dataset, Path("unused")), "validation")
    return {file.name: caption for file, caption in rows}


def test_a_single_strength_is_the_one_that_all_prompts_are_drawn_with(store: ObjectStore) -> None:
    found = read(store, evaluate(EvaluateSettings(scales=[0.5])))
    assert (found.scale, found.candidates) == (0.5, [])
    assert found.prompts == read(store, evaluate(EvaluateSettings())).prompts
