"""A champion's copy tells in its model card and in the headers of its weights why it reigns; its tensors are the LoRA's."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from service.artifacts.champion_copy import COPY_OF
from service.artifacts.fetching import fetch, verify
from service.artifacts.history import History
from service.artifacts.kinds.evaluation import Finding, Interval
from service.artifacts.kinds.lora import read as read_lora
from service.exits import ExitCode
from tests.releases import MODEL, WEIGHTS, Jobs, entries, evaluated, reigning, trained
from tests.unit.lineage.records import Published, entry, publish

COPY = f"registry/{MODEL}/champion"
TOLD = {"explanation": "", "threshold": 0.0, "needed": "interval above 0", "clause": ""}
FINDINGS = [
    Finding(name="style", title="Style", base=0.2, lora=0.1, gain=Interval(0.1, 0.05, 0.15), outcome="promote", **TOLD),
    Finding(name="memorisation", title="Nearness", base=0.0, lora=0.01, gain=Interval(-0.01, float("nan"), 0.0),
            outcome=None, **TOLD),
]  # fmt: skip


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Jobs:
    return Jobs(tmp_path, monkeypatch, capsys)


def dataset(jobs: Jobs) -> str:
    """One whose images have licences, but for one; of an image that was left out the licence does not count."""
    licences = ["CC0-1.0", None, "CC0-1.0", "CC-BY-4.0", "CC-BY-4.0"]
    candidates = [
        entry(
            rank, f"https://a.example/{rank}.png", licence=licence, file_name=f"train/{rank}.png" if rank < 4 else None
        )
        for rank, licence in enumerate(licences)
    ]
    captions = {f"train/{rank}.png": "a cat" for rank in range(4)} | {"validation/x.png": "a dog"}
    return publish(jobs.store, jobs.folder / "dataset", Published(captions, candidates))


def promoted(jobs: Jobs, run_id: str, of: str, **changes: object) -> str:
    """Path of the evaluation on which it was promoted."""
    trained(jobs.store, run_id, of)
    path = evaluated(jobs.store, run_id, History.read(jobs.store, MODEL).champion, findings=FINDINGS, **changes)
    forced = {"PROMOTE_FORCE": "the deadline"} if "decision" in changes else {}
    jobs("promote", RUN_ID=run_id, **forced)
    return path


def header(jobs: Jobs) -> dict[str, str]:
    """What the weights of the champion's copy say, as a program that knows nothing of us reads it."""
    with safe_open(fetch(jobs.store, COPY, jobs.folder / "elsewhere") / WEIGHTS, "np") as weights:
        assert np.array_equal(weights.get_tensor("more"), np.ones((2, 3), dtype=np.float32))
        return dict(weights.metadata())


def card(jobs: Jobs) -> str:
    return jobs.store.get(f"{COPY}/README.md").decode()


def test_the_header_tells_what_the_evaluation_says_and_the_licences_that_the_data_set_tells(jobs: Jobs) -> None:
    of = dataset(jobs)
    path = promoted(jobs, "one", of)
    found, told = json.loads(jobs.store.get(f"{path}/evaluation.json")), header(jobs)
    assert json.loads(told["sdlora.findings"]) == found["findings"]
    assert [told[f"sdlora.{name}"] for name in ("decision", "reason")] == [found["decision"], found["reason"]]
    assert float(told["sdlora.confidence"]) == found["confidence"]
    assert (told["sdlora.evaluation"], told["sdlora.dataset"], told["sdlora.champion_of"]) == (path, of, MODEL)
    assert list(json.loads(told["sdlora.licences"]).items()) == [("CC0-1.0", 2), ("CC-BY-4.0", 1), ("not said", 1)]
    assert "sdlora.overruled" not in told
    # What it said before is still there, and the hash by which other programs name the LoRA is right.
    assert told["modelspec.title"] == "one"
    assert told["modelspec.hash_sha256"] == f"0x{told['sshs_model_hash']}"


def test_the_model_card_is_that_of_the_lora_with_the_report_and_the_licences(jobs: Jobs) -> None:
    of = dataset(jobs)
    path = promoted(jobs, "one", of)
    original, report = (jobs.store.get(key).decode() for key in ("runs/one/lora/README.md", f"{path}/report.md"))
    assert card(jobs).startswith(original)
    assert report.strip() in card(jobs)
    assert "as their sources told them: CC0-1.0 (2), CC-BY-4.0 (1), not said (1)." in card(jobs)
    for named in (f"`{of}`", f"`{path}`", f"Champion of `{MODEL}`, by entry 1 "):
        assert named in card(jobs)
    assert "although" not in card(jobs)


def test_the_copy_is_whole_and_its_manifest_says_of_which_lora_it_is_one(jobs: Jobs) -> None:
    of = dataset(jobs)
    path = promoted(jobs, "one", of)
    lora, copy = read_lora(jobs.store, "runs/one/lora"), read_lora(jobs.store, COPY)
    told = copy.recipe.pop(COPY_OF)
    assert (copy.recipe, copy.parents) == (lora.recipe, lora.parents)
    assert told == {
        "model": MODEL, "lora": "runs/one/lora", "version": lora.version, "scale": 1.0, "checkpoint": None,
        "evaluation": path, "promotion": 1,
    }  # fmt: skip
    assert verify(jobs.store, COPY).version == copy.version != lora.version
    assert verify(jobs.store, "runs/one/lora").version == lora.version


def test_after_a_rollback_and_a_retirement_the_copy_has_the_evidence_of_the_former_champion_again(jobs: Jobs) -> None:
    of = dataset(jobs)
    first, before = promoted(jobs, "one", of), jobs.store.get(f"{COPY}/MANIFEST.json")
    second = promoted(jobs, "two", of)
    assert header(jobs)["sdlora.evaluation"] == second
    jobs("rollback")
    assert jobs.store.get(f"{COPY}/MANIFEST.json") == before
    assert header(jobs)["sdlora.evaluation"] == first
    jobs("rollback", ROLLBACK_TO="2")
    jobs("retire", RETIRE_LORAS="runs/two/lora", RETIRE_REASON="r")
    assert jobs.store.get(f"{COPY}/MANIFEST.json") == before
    assert first in card(jobs)
    assert second not in card(jobs)


def test_one_that_was_promoted_by_force_says_so(jobs: Jobs) -> None:
    promoted(jobs, "one", dataset(jobs), decision="hold")
    assert header(jobs)["sdlora.decision"] == "hold"
    assert "says hold" in header(jobs)["sdlora.overruled"]
    assert "**Promoted although its evaluation does not say so:**" in card(jobs)
    assert "The reason given: the deadline" in card(jobs)


def test_the_same_lora_on_another_evaluation_has_the_evidence_of_that_one(jobs: Jobs) -> None:
    first = promoted(jobs, "one", dataset(jobs))
    second = evaluated(jobs.store, "one", History.read(jobs.store, MODEL).champion, findings=FINDINGS)
    jobs("promote", PROMOTE_EVALUATION=second)
    assert first != header(jobs)["sdlora.evaluation"] == second


def test_what_is_not_known_of_the_images_is_not_made_up(jobs: Jobs) -> None:
    promoted(jobs, "one", "datasets/gone/0123456789abcdef")
    assert "sdlora.licences" not in header(jobs)
    assert "as their sources told them: not known." in card(jobs)


def test_a_former_champion_whose_evaluation_is_damaged_reigns_again_without_evidence(jobs: Jobs) -> None:
    of = dataset(jobs)
    path = promoted(jobs, "one", of)
    promoted(jobs, "two", of)
    jobs.store.put(f"{path}/evaluation.json", b"{")
    jobs("rollback")
    assert reigning(jobs.store) == "runs/one/lora"
    assert jobs.store.get(f"{COPY}/{WEIGHTS}") == jobs.store.get(f"runs/one/lora/{WEIGHTS}")


def test_a_copy_is_neither_promoted_nor_withdrawn_in_the_place_of_its_lora(jobs: Jobs) -> None:
    promoted(jobs, "one", dataset(jobs))
    copy, before = read_lora(jobs.store, COPY), entries(jobs.store)
    path = evaluated(jobs.store, "one", lora=COPY, settings={"lora_version": copy.version}, decision="reject")
    refused = jobs("promote", ExitCode.BAD_CONFIGURATION, PROMOTE_EVALUATION=path, PROMOTE_FORCE="r")
    assert f"{COPY} is a copy of a champion" in refused
    assert COPY in jobs("retire", ExitCode.BAD_CONFIGURATION, RETIRE_LORAS=COPY, RETIRE_REASON="r")
    assert entries(jobs.store) == before
