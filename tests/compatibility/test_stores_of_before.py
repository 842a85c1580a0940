"""What earlier code has written is read, called done, and gone on with, to the same LoRA.

Only the command line and what it leaves in the store are looked at: how the code reads it is its own affair.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from tests.compatibility.stores import Contents, StoreOfBefore

FIXTURES = Path(__file__).parent
DONE, BAD_DATA, BAD_CONFIGURATION, REJECTED = 0, 65, 78, 80
TOLERANCE = 1e-6
"""Of the LoRA's weights: another processor adds up in another order."""
WEIGHTS = "pytorch_lora_weights.safetensors"
KOHYA = "kohya_lora_weights.safetensors"
"""What the file for other programs was called then."""
CHANGED_FACTS = {"modelspec.title", "ss_sd_model_name"}
"""They told the path of the base model; now the one is the name of the run, the other the model's without its path."""
JOBS = ("data-prep", "train", "infer", "evaluate")
RUNS = ("finished", "half-done")
OTHER_CLIP = "openai/clip-vit-base-patch32"


@pytest.fixture(params=["ef05282"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> StoreOfBefore:
    """A copy in another folder than that in which it was made."""
    return StoreOfBefore.copied(FIXTURES / request.param, tmp_path / "elsewhere")


@pytest.mark.parametrize("job", JOBS)
def test_a_finished_job_is_done_names_what_it_made_then_and_writes_nothing_again(
    store: StoreOfBefore, job: str
) -> None:
    before = store.contents()
    end = store.run(job, "finished", OUTCOME_FILE="outcome.json")
    assert end.code == DONE, end.said
    assert store.read("outcome.json")["artifact"] == made_by(job, store)
    assert changed(before, store.contents()) == []
    if job == "evaluate":
        assert store.expected["evaluation"]["reason"] in end.said


def test_a_half_done_training_goes_on_from_its_newest_checkpoint_to_the_lora_of_then(store: StoreOfBefore) -> None:
    before = store.contents()
    end = store.run("train", "half-done")
    assert end.code == DONE, end.said
    assert [attempt["step"] for attempt in attempts(store)] == [0, 8]
    check_lora(store)
    assert changed_outside(("runs/half-done/", "cache/"), before, store.contents()) == []


@pytest.mark.parametrize("run_id", RUNS)
def test_prune_deletes_the_checkpoints_that_it_deleted_then_and_nothing_else(store: StoreOfBefore, run_id: str) -> None:
    before = store.contents()
    end = store.run("prune", run_id, PRUNE_DRY_RUN="false")
    assert end.code == DONE, end.said
    gone = {path.rpartition("/")[0] for path in changed(before, store.contents())}
    assert sorted(gone) == store.expected["pruned"][run_id]


def test_prune_of_all_runs_takes_nothing_of_it_for_a_leftover(store: StoreOfBefore) -> None:
    before = store.contents()
    end = store.run("prune", "finished", PRUNE_DRY_RUN="false", PRUNE_ALL_RUNS="true", PRUNE_KEEP_LAST="3")
    assert end.code == DONE, end.said
    assert changed(before, store.contents()) == []


@pytest.mark.parametrize("run_id", RUNS)
def test_doctor_finds_nothing_amiss_and_leaves_nothing_behind(store: StoreOfBefore, run_id: str) -> None:
    before = store.contents()
    end = store.run("doctor", run_id, DOCTOR_MIN_DISK_GIB="0.001")
    assert end.code == DONE, end.said
    assert changed(before, store.contents()) == []


@pytest.mark.parametrize("run_id", RUNS)
def test_config_knows_every_variable_of_then(store: StoreOfBefore, run_id: str) -> None:
    assert store.run("config", run_id, "--check").code == DONE
    end = store.run("config", run_id)
    assert end.code == DONE, end.said
    effective, then = json.loads(end.output), store.read("variables.json")
    assert (then["all"] | then[run_id]).keys() <= effective.keys()
    assert effective["MODEL_BASE"] == then["all"]["MODEL_BASE"]


def test_what_was_made_then_serves_new_work(store: StoreOfBefore) -> None:
    lora, dataset = made_by("train", store), made_by("data-prep", store)
    before = store.contents()
    for job, variables in (
        ("train", {"TRAIN_DATASET": dataset, "TRAIN_MAX_STEPS": "2", "TRAIN_SAMPLE_EVERY": "0"}),
        ("infer", {"INFER_LORA": lora, "INFER_SEED": "7"}),
        ("evaluate", {"EVALUATE_LORA": lora, "EVALUATE_SEED": "7"}),
    ):
        end = store.run(job, "finished", RUN_ID="new", OUTCOME_FILE="outcome.json", **variables)
        assert end.code == DONE, end.said
        made = store.read("outcome.json")["artifact"]
        manifest = json.loads((store.artifacts / made / "MANIFEST.json").read_text())
        assert manifest["parents"][0] == (dataset if job == "train" else lora)
    assert changed_outside(("runs/new/", "cache/"), before, store.contents()) == []


@pytest.mark.parametrize("run_id", RUNS)
def test_a_setting_that_decides_is_refused_in_a_run_of_then_and_named(store: StoreOfBefore, run_id: str) -> None:
    before = store.contents()
    end = store.run("train", run_id, TRAIN_RANK="3")
    assert end.code == BAD_CONFIGURATION, end.said
    assert "RANK" in end.said
    assert changed(before, store.contents()) == []


@pytest.mark.parametrize("run_id", RUNS)
def test_how_the_work_is_done_may_differ_from_then(store: StoreOfBefore, run_id: str) -> None:
    how = {"TRAIN_CHECKPOINT_EVERY": "6", "TRAIN_KEEP_LAST": "5", "TRAIN_STATUS_SECONDS": "1", "WORK_DIR": "other-work"}
    before = store.contents()
    end = store.run("train", run_id, **how)
    assert end.code == DONE, end.said
    if run_id == "finished":
        assert changed(before, store.contents()) == []
    else:
        check_lora(store)


def test_a_setting_that_the_finished_run_does_not_know_takes_its_default_of_then(store: StoreOfBefore) -> None:
    store.forget("bucket_enlarge", "finished")
    before = store.contents()
    end = store.run("train", "finished")
    assert end.code == DONE, end.said
    assert changed(before, store.contents()) == []


def test_a_setting_that_the_half_done_training_does_not_know_takes_its_default_of_then(store: StoreOfBefore) -> None:
    store.forget("bucket_enlarge", "half-done")
    end = store.run("train", "half-done")
    assert end.code == DONE, end.said
    check_lora(store)


@pytest.mark.parametrize("run_id", RUNS)
def test_a_setting_that_a_run_does_not_know_is_refused_with_another_value(store: StoreOfBefore, run_id: str) -> None:
    store.forget("bucket_enlarge", run_id)
    before = store.contents()
    end = store.run("train", run_id, TRAIN_BUCKET_ENLARGE="2")
    assert end.code == BAD_CONFIGURATION, end.said
    assert "BUCKET_ENLARGE" in end.said
    assert changed(before, store.contents()) == []


def test_another_clip_does_not_refuse_a_half_done_training(store: StoreOfBefore) -> None:
    end = store.run("train", "half-done", MODEL_CLIP=OTHER_CLIP)
    assert end.code == DONE, end.said
    check_lora(store)


@pytest.mark.parametrize("job", ["train", "infer"])
def test_another_clip_undoes_nothing_that_was_made_without_one(store: StoreOfBefore, job: str) -> None:
    before = store.contents()
    end = store.run(job, "finished", MODEL_CLIP=OTHER_CLIP)
    assert end.code == DONE, end.said
    assert changed(before, store.contents()) == []


def test_to_ask_for_a_failure_draws_nothing_again(store: StoreOfBefore) -> None:
    before = store.contents()
    end = store.run("evaluate", "finished", EVALUATE_FAIL_UNLESS_PROMOTED="true")
    assert end.code == (DONE if store.expected["evaluation"]["decision"] == "promote" else REJECTED), end.said
    assert changed(before, store.contents()) == []


@pytest.mark.parametrize("name", [WEIGHTS, KOHYA])
def test_a_lora_file_of_then_is_drawn_with_as_the_lora_of_then_was(store: StoreOfBefore, name: str) -> None:
    end = store.run("infer", "finished", RUN_ID="new", INFER_LORA=f"artifacts/runs/finished/lora/{name}")
    assert end.code == DONE, end.said
    [made], [then] = (list(store.artifacts.glob(f"runs/{run}/images/*/lora")) for run in ("new", "finished"))
    names = sorted(file.name for file in then.glob("*.png"))
    assert names
    for picture in names:
        now, before = (np.asarray(Image.open(folder / picture), np.int16) for folder in (made, then))
        assert np.abs(now - before).mean() < 1


def test_a_dora_of_then_is_taken_in_the_form_for_diffusers_and_refused_in_that_which_diffusers_misreads(
    store: StoreOfBefore,
) -> None:
    end = store.run("infer", "finished", RUN_ID="new", INFER_LORA=f"expected/{WEIGHTS}")
    assert end.code == DONE, end.said
    end = store.run("infer", "finished", RUN_ID="other", INFER_LORA=f"expected/{KOHYA}")
    assert end.code == BAD_DATA, end.said
    assert "DoRA in kohya's form" in end.said


def changed(before: Contents, after: Contents) -> list[str]:
    """Paths that came, went, or were written with other bytes; those of artifacts also when they were written again."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


def changed_outside(places: tuple[str, ...], before: Contents, after: Contents) -> list[str]:
    return [path for path in changed(before, after) if not path.startswith(places)]


def made_by(job: str, store: StoreOfBefore) -> str:
    """The path of the artifact that the job of the finished run made."""
    folder = {"data-prep": "datasets/", "train": "runs/finished/lora", "infer": "runs/finished/images/",
              "evaluate": "runs/finished/evaluation/"}[job]  # fmt: skip
    [path] = [path for path in store.expected["artifacts"] if path.startswith(folder)]
    return path


def attempts(store: StoreOfBefore) -> list[dict[str, Any]]:
    return [json.loads(note.read_text()) for note in sorted(store.artifacts.glob("runs/half-done/attempts/*.json"))]


def check_lora(store: StoreOfBefore) -> None:
    """The half-done training has come to the LoRA of then: numbers within the tolerance, all else the same."""
    made, expected = store.artifacts / "runs" / "half-done" / "lora", store.folder / "expected"
    (tensors, facts), (tensors_then, facts_then) = read_weights(made / WEIGHTS), read_weights(expected / WEIGHTS)
    assert {name: fact for name, fact in facts_then.items() if name not in CHANGED_FACTS}.items() <= facts.items()
    # It is a DoRA, of which there is no file for programs that apply it otherwise than it was trained.
    assert [file.name for file in made.rglob("*.safetensors")] == [WEIGHTS]
    # What it holds is that of then, but under the names that transformers 4 had for the text encoder.
    now = {name.replace("text_encoder.text_model.", "text_encoder."): tensor for name, tensor in tensors.items()}
    assert now.keys() == tensors_then.keys()
    for key, tensor in now.items():
        torch.testing.assert_close(
            tensor, tensors_then[key], rtol=0, atol=TOLERANCE, msg=lambda text, k=key: f"{k}: {text}"
        )
    metrics, metrics_then = (read_lines(folder / "metrics.jsonl") for folder in (made, expected))
    assert [line.keys() for line in metrics] == [line.keys() for line in metrics_then]
    for line, line_then in zip(metrics, metrics_then, strict=True):
        assert line == pytest.approx(line_then, rel=1e-4, abs=TOLERANCE)
    complete = json.loads((made.parent / "COMPLETE.json").read_text())
    then = store.expected["half_done_gone_on"]["complete"]
    assert {name: complete[name] for name in ("lora", "steps", "of_step")} == {
        name: then[name] for name in ("lora", "steps", "of_step")
    }


def read_weights(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors, and what the header says of the training; the rest of it is the libraries' own."""
    with safe_open(file, "pt") as content:
        facts = {k: v for k, v in content.metadata().items() if k.startswith(("modelspec.", "ss_", "sdlora."))}
        return {name: content.get_tensor(name) for name in content.keys()}, facts  # noqa: SIM118 - no mapping


def read_lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]
