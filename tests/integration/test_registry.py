"""promote, rollback, retire and champion: what they write, what they refuse, and that a kill at any write is healed."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from service.artifacts.fetching import verify
from service.artifacts.history import History
from service.artifacts.kinds.registry import Entry
from service.artifacts.runs import Run
from service.diffusion.imported import lora_of
from service.exits import BadData, ExitCode, MissingInput
from service.jobs import promote as promoting
from service.jobs import retire as retiring
from service.jobs import rollback as rolling_back
from service.storage.interface import ObjectStore
from service.storage.opening import open_store
from tests.receivers import receiving
from tests.releases import MODEL, Jobs, aged, copied, entries, evaluated, reigning, trained
from tests.watched import Killed, Mortal, MortalWithConditions


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Jobs:
    return Jobs(tmp_path, monkeypatch, capsys)


def last(store: ObjectStore) -> Entry:
    return History.read(store, MODEL).entries[-1]


def test_the_first_champion_is_an_entry_that_says_all_and_a_copy_that_anybody_can_read(jobs: Jobs) -> None:
    jobs.promote("one", PROMOTE_BY="ci/7", PROMOTE_IMAGE="sdlora@sha256:0123")
    entry = last(jobs.store)
    assert (entry.lora, entry.evaluation) == ("runs/one/lora", "runs/one/evaluation/none-promote")
    assert entry.version == verify(jobs.store, "runs/one/lora").version
    assert (entry.by, entry.image, entry.reason) == ("ci/7", "sdlora@sha256:0123", "the style comes nearer")
    assert (entry.promotion, entry.previous, entry.scale, entry.overruled) == (1, None, 1.0, "")
    assert timedelta() <= datetime.now(UTC) - entry.at < timedelta(minutes=5)
    assert entry.code_version
    [key] = entries(jobs.store)
    assert key.startswith(f"registry/{MODEL}/00000001-")
    assert reigning(jobs.store) == "runs/one/lora"


def test_the_next_champion_is_one_that_was_evaluated_against_the_last(jobs: Jobs) -> None:
    jobs.promote("one")
    first = entries(jobs.store)
    jobs.promote("two")
    assert last(jobs.store).previous == "runs/one/lora"
    assert reigning(jobs.store) == "runs/two/lora"
    assert entries(jobs.store).items() > first.items()


def test_the_same_evaluation_again_is_already_done(jobs: Jobs) -> None:
    jobs.promote("one")
    before = entries(jobs.store)
    jobs("promote", RUN_ID="one")
    jobs("promote", PROMOTE_EVALUATION="runs/one/evaluation/none-promote")
    assert entries(jobs.store) == before


def test_what_was_done_already_has_the_same_outcome(jobs: Jobs) -> None:
    def outcome(job: str, **variables: str) -> dict[str, Any]:
        jobs(job, OUTCOME_FILE=str(jobs.folder / "outcome.json"), **variables)
        return {**json.loads((jobs.folder / "outcome.json").read_text()), "seconds": None}

    jobs.promote("one")
    trained(jobs.store, "two")
    evaluated(jobs.store, "two", last(jobs.store))
    promoted = outcome("promote", RUN_ID="two")
    assert outcome("promote", RUN_ID="two") == promoted
    rolled_back = outcome("rollback", ROLLBACK_TO="1")
    assert outcome("rollback", ROLLBACK_TO="1") == rolled_back
    assert (promoted["champion"], rolled_back["champion"]) == ("runs/two/lora", "runs/one/lora")


def test_the_newest_evaluation_of_the_run_counts(jobs: Jobs) -> None:
    trained(jobs.store, "one")
    evaluated(jobs.store, "one")
    aged(jobs.folder / "artifacts")
    evaluated(jobs.store, "one", decision="hold")
    assert "says hold" in jobs("promote", ExitCode.REJECTED, RUN_ID="one")


REFUSED: dict[str, tuple[Callable[[ObjectStore], str], ExitCode, str]] = {
    "one that says hold": (
        lambda store: evaluated(store, "two", last(store), decision="hold", reason="in doubt"),
        ExitCode.REJECTED,
        "says hold: in doubt",
    ),
    "one of a time without a champion": (
        lambda store: evaluated(store, "two"),
        ExitCode.REJECTED,
        "made against no champion, and the champion is runs/one/lora",
    ),
    "one against an older champion": (
        lambda store: evaluated(store, "two", Entry(lora="runs/zero/lora", version="0" * 16)),
        ExitCode.REJECTED,
        "made against runs/zero/lora at strength 1, and the champion is runs/one/lora at strength 1",
    ),
    "one against the champion at another strength": (
        lambda store: evaluated(store, "two", last(store).model_copy(update={"scale": 0.8})),
        ExitCode.REJECTED,
        "made against runs/one/lora at strength 0.8, and the champion is runs/one/lora at strength 1",
    ),
    "one of another data set": (
        lambda store: evaluated(store, "two", last(store), dataset="datasets/other/1"),
        ExitCode.REJECTED,
        "of the data set datasets/other/1",
    ),
    "one of another LoRA": (
        lambda store: evaluated(store, "two", last(store), settings={"lora_version": "f" * 16}),
        ExitCode.BAD_DATA,
        "of another LoRA",
    ),
    "a damaged one": (lambda store: damaged(store, evaluated(store, "two", last(store))), ExitCode.BAD_DATA, "damaged"),
    "what is no evaluation": (lambda _: "runs/two/lora", ExitCode.BAD_CONFIGURATION, "'evaluation' is needed"),
    "what is not there": (lambda _: "runs/two/evaluation/x", ExitCode.MISSING_INPUT, "does not exist"),
    "one whose LoRA is damaged": (lambda store: of_damaged_lora(store), ExitCode.BAD_DATA, "README.md"),
}  # fmt: skip


def damaged(store: ObjectStore, path: str) -> str:
    store.put(f"{path}/evaluation.json", b"{}")
    return path


def of_damaged_lora(store: ObjectStore) -> str:
    path = evaluated(store, "two", last(store))
    store.put("runs/two/lora/README.md", b"another one")
    return path


@pytest.mark.parametrize("case", REFUSED)
def test_nothing_changes_by_an_evaluation_that_does_not_do(case: str, jobs: Jobs) -> None:
    make, code, told = REFUSED[case]
    jobs.promote("one")
    trained(jobs.store, "two")
    path = make(jobs.store)
    before = {stored.key for stored in jobs.store.list("registry/")}, entries(jobs.store)
    error = jobs("promote", code, PROMOTE_EVALUATION=path)
    assert told in error
    assert "\n" not in error
    assert ({stored.key for stored in jobs.store.list("registry/")}, entries(jobs.store)) == before
    assert reigning(jobs.store) == "runs/one/lora"


@pytest.mark.parametrize("name", ["a/b", "..", "", " a", "x" * 64])
def test_a_name_that_cannot_be_a_models_is_refused(name: str, jobs: Jobs) -> None:
    if name == " a":
        name = "a b"
    for job in ("promote", "rollback", "champion", "retire"):
        if name or job in ("promote", "rollback"):
            assert "PROMOTE_MODEL" in jobs(job, ExitCode.BAD_CONFIGURATION, PROMOTE_MODEL=name)


@pytest.mark.parametrize("job", ["promote", "rollback", "champion", "retire"])
def test_an_entry_of_a_newer_version_is_refused_and_left_alone(job: str, jobs: Jobs) -> None:
    jobs.promote("one")
    history = History.read(jobs.store, MODEL)
    jobs.store.put(history.key(2), json.dumps({"schema_version": 3, "lora": None, "split": 0.5}).encode())
    before = entries(jobs.store)
    evaluated(jobs.store, "one")
    variables = {"RUN_ID": "one", "RETIRE_LORAS": "runs/one/lora", "RETIRE_REASON": "r"}
    assert "run the newer version" in jobs(job, ExitCode.BAD_CONFIGURATION, **variables)
    assert entries(jobs.store) == before


@pytest.mark.parametrize("job", ["promote", "rollback", "champion"])
def test_a_history_that_was_changed_or_has_a_gap_is_bad_data(job: str, jobs: Jobs) -> None:
    jobs.promote("one")
    jobs.promote("two")
    first, _ = entries(jobs.store)
    whole = jobs.store.get(first)
    jobs.store.put(first, whole.replace(b"nearer", b"neared"))
    assert "was changed" in jobs(job, ExitCode.BAD_DATA, RUN_ID="two")
    jobs.store.delete(first)
    assert "no entry with number 1" in jobs(job, ExitCode.BAD_DATA, RUN_ID="two")
    jobs.store.put(first, whole)
    jobs.store.put(f"registry/{MODEL}/00000002-{'0' * 16}.json", b"{}")
    assert "two entries with number 2" in jobs(job, ExitCode.BAD_DATA, RUN_ID="two")


def test_a_reason_overrules_the_gate_and_the_entry_says_what_it_overruled(jobs: Jobs) -> None:
    jobs.promote("one")
    trained(jobs.store, "two")
    evaluated(jobs.store, "two", decision="reject", reason="it draws nothing")
    jobs("promote", RUN_ID="two", PROMOTE_FORCE="the customer wants it")
    entry = last(jobs.store)
    assert (entry.reason, reigning(jobs.store)) == ("the customer wants it", "runs/two/lora")
    assert "says reject: it draws nothing" in entry.overruled


def test_rollback_goes_back_one_champion_at_a_time_and_never_forth(jobs: Jobs) -> None:
    for run_id in ("one", "two", "three"):
        jobs.promote(run_id)
    jobs("rollback", ROLLBACK_REASON="it draws hands")
    assert (reigning(jobs.store), last(jobs.store).reason) == ("runs/two/lora", "it draws hands")
    assert (last(jobs.store).action, last(jobs.store).promotion) == ("rollback", 2)
    assert last(jobs.store).previous == "runs/three/lora"
    jobs("rollback")
    assert reigning(jobs.store) == "runs/one/lora"
    assert "nobody reigned before" in jobs("rollback", ExitCode.MISSING_INPUT)
    jobs("rollback", ROLLBACK_TO="3")
    assert reigning(jobs.store) == "runs/three/lora"
    jobs("rollback", ROLLBACK_TO="3")
    assert len(entries(jobs.store)) == 6
    assert "no entry 9" in jobs("rollback", ExitCode.MISSING_INPUT, ROLLBACK_TO="9")
    assert "is empty" in jobs("rollback", ExitCode.MISSING_INPUT, PROMOTE_MODEL="other")


def test_a_rollback_to_a_lora_that_is_gone_or_damaged_changes_nothing(jobs: Jobs) -> None:
    jobs.promote("one")
    jobs.promote("two")
    before = entries(jobs.store)
    jobs.store.put("runs/one/lora/README.md", b"another one")
    assert "README.md" in jobs("rollback", ExitCode.BAD_DATA)
    jobs.store.delete("runs/one/lora/MANIFEST.json")
    assert "runs/one/lora" in jobs("rollback", ExitCode.MISSING_INPUT)
    assert entries(jobs.store) == before
    assert reigning(jobs.store) == "runs/two/lora"


def test_of_a_champion_that_is_retired_the_next_best_takes_the_place_and_it_never_comes_back(jobs: Jobs) -> None:
    for run_id in ("one", "two", "three"):
        jobs.promote(run_id)
    jobs("retire", RETIRE_LORAS="runs/two/lora,runs/three/lora", RETIRE_REASON="an image without a licence")
    entry = last(jobs.store)
    assert (entry.action, entry.reason, entry.promotion) == ("retire", "an image without a licence", 1)
    assert set(entry.retired.values()) == {"runs/two/lora", "runs/three/lora"}
    assert reigning(jobs.store) == "runs/one/lora"
    assert "for ever" in jobs("rollback", ExitCode.REJECTED, ROLLBACK_TO="2")
    evaluated(jobs.store, "two", entry)
    assert "for ever" in jobs("promote", ExitCode.REJECTED, RUN_ID="two", PROMOTE_FORCE="I want it")
    jobs("retire", RETIRE_LORAS="runs/two/lora", RETIRE_REASON="again")
    assert len(entries(jobs.store)) == 4


def test_one_that_does_not_reign_is_retired_without_a_change_of_the_champion(jobs: Jobs) -> None:
    jobs.promote("one")
    jobs.promote("two")
    jobs("retire", RETIRE_LORAS="runs/one/lora", RETIRE_REASON="r")
    assert reigning(jobs.store) == "runs/two/lora"
    assert "nobody reigned before" in jobs("rollback", ExitCode.MISSING_INPUT)


def test_without_a_next_best_there_is_no_champion_and_no_copy_until_the_next_promotion(jobs: Jobs) -> None:
    jobs.promote("one")
    jobs("retire", RETIRE_LORAS="runs/one/lora", RETIRE_REASON="r")
    assert reigning(jobs.store) is None
    assert "has no champion" in jobs("infer", ExitCode.MISSING_INPUT, INFER_LORA=f"registry:{MODEL}")
    jobs.promote("two")
    assert (reigning(jobs.store), last(jobs.store).previous) == ("runs/two/lora", None)


def test_retire_looks_at_every_model_and_at_every_path_of_the_same_lora(jobs: Jobs) -> None:
    jobs.promote("one")
    jobs("promote", RUN_ID="one", PROMOTE_MODEL="other")
    jobs.promote("two")
    trained(jobs.store, "never-promoted")
    jobs("retire", PROMOTE_MODEL="", RETIRE_LORAS="runs/one/lora,runs/never-promoted/lora", RETIRE_REASON="r")
    assert (reigning(jobs.store), reigning(jobs.store, "other")) == ("runs/two/lora", None)
    nowhere = {"PROMOTE_MODEL": "", "RETIRE_LORAS": "runs/never-promoted/lora", "RETIRE_REASON": "r"}
    assert "never-promoted" in jobs("retire", ExitCode.MISSING_INPUT, **nowhere)
    jobs("retire", RETIRE_LORAS="runs/never-promoted/lora", RETIRE_REASON="r")
    evaluated(jobs.store, "never-promoted", last(jobs.store))
    assert "for ever" in jobs("promote", ExitCode.REJECTED, RUN_ID="never-promoted")


def test_retire_wants_to_know_what_and_why(jobs: Jobs) -> None:
    assert "RETIRE_LORAS" in jobs("retire", ExitCode.BAD_CONFIGURATION, RETIRE_REASON="r")
    assert "RETIRE_REASON" in jobs("retire", ExitCode.BAD_CONFIGURATION, RETIRE_LORAS="runs/one/lora")


def test_champion_tells_who_it_is_who_it_was_and_why(jobs: Jobs) -> None:
    jobs.promote("one")
    jobs.promote("two")
    backdate(jobs.store)
    jobs("rollback")
    everything = json.loads(jobs("champion", PROMOTE_MODEL=""))
    assert {name: line["lora"] for name, line in everything.items()} == {MODEL: "runs/one/lora"}
    assert [line["number"] for line in json.loads(jobs("champion"))] == [3, 2, 1]
    assert json.loads(jobs("champion", CHAMPION_NUMBER="2"))["lora"] == "runs/two/lora"
    expected = {
        "2026-01-01": "runs/one/lora",
        "2026-02-01T11:59Z": "runs/one/lora",
        "2026-02-01T12:00:00": "runs/two/lora",
        "2026-02-01": "runs/two/lora",
        "2099-01-01": "runs/one/lora",
    }
    assert {day: json.loads(jobs("champion", CHAMPION_ON=day))["lora"] for day in expected} == expected
    assert "no champion on" in jobs("champion", ExitCode.MISSING_INPUT, CHAMPION_ON="2025-12-31")
    assert "no entry 4" in jobs("champion", ExitCode.MISSING_INPUT, CHAMPION_NUMBER="4")
    assert "no model" in jobs("champion", ExitCode.MISSING_INPUT, PROMOTE_MODEL="other")
    assert "CHAMPION_ON" in jobs("champion", ExitCode.BAD_CONFIGURATION, CHAMPION_ON="yesterday")
    assert "PROMOTE_MODEL" in jobs("champion", ExitCode.BAD_CONFIGURATION, PROMOTE_MODEL="", CHAMPION_NUMBER="1")


def backdate(store: ObjectStore) -> None:
    """The history as it would be, had its entries been made on the first days of 2026's months at noon."""
    history = History.read(store, MODEL)
    for key in entries(store):
        store.delete(key)
    for month, entry in enumerate(history.entries, 1):
        dated = entry.model_copy(update={"at": datetime(2026, month, 1, 12, tzinfo=UTC)})
        before = History.read(store, MODEL)
        store.put(before.key(month), dated.to_bytes())


def test_the_champion_is_found_by_its_models_name_with_the_strength_of_its_entry(jobs: Jobs) -> None:
    jobs.promote("one")
    history = History.read(jobs.store, MODEL)
    stronger = history.entries[0].model_copy(update={"scale": 0.7})
    jobs.store.put(history.key(2), stronger.to_bytes())
    found = lora_of(Run(jobs.store, "two"), f"registry:{MODEL}", jobs.folder)
    assert (found.path, found.version, found.scale) == ("runs/one/lora", stronger.version, 0.7)
    assert lora_of(Run(jobs.store, "one"), None, jobs.folder).scale == 1.0
    with pytest.raises(MissingInput, match=r"'other' .* has no champion"):
        lora_of(Run(jobs.store, "two"), "registry:other", jobs.folder)
    other = stronger.model_copy(update={"version": "f" * 16})
    jobs.store.put(History.read(jobs.store, MODEL).key(3), other.to_bytes())
    with pytest.raises(BadData, match="ffff"):
        lora_of(Run(jobs.store, "two"), f"registry:{MODEL}", jobs.folder)
    assert "INFER_LORA" in jobs("infer", ExitCode.BAD_CONFIGURATION, INFER_LORA="registry:a/b")


PREPARED: dict[str, tuple[dict[str, str], str | None, Any]] = {
    "promote": ({"RUN_ID": "three"}, "runs/three/lora", promoting),
    "rollback": ({}, "runs/one/lora", rolling_back),
    "retire": ({"RETIRE_LORAS": "runs/two/lora", "RETIRE_REASON": "r"}, "runs/one/lora", retiring),
}


@pytest.mark.parametrize("kind", [Mortal, MortalWithConditions], ids=["agreed on", "conditional writes"])
@pytest.mark.parametrize("job", PREPARED)
def test_a_kill_before_any_write_is_healed_by_running_again(
    job: str, kind: type[Mortal], jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables, expected, module = PREPARED[job]
    for run_id in ("one", "two"):
        jobs.promote(run_id)
    trained(jobs.store, "three")
    evaluated(jobs.store, "three", last(jobs.store))
    before, kills = entries(jobs.store), 0
    while True:
        jobs.store = open_store(str(copied(jobs.folder / "artifacts", jobs.folder / "copy")))
        mortal = kind(jobs.store, kills + 1)
        with monkeypatch.context() as patch:
            patch.setattr(module, "open_store", lambda _, mortal=mortal: mortal)
            try:
                jobs(job, **variables)
                break
            except Killed:
                kills += 1
        assert entries(jobs.store).items() >= before.items()
        jobs(job, **variables)
        now = entries(jobs.store)
        assert now.items() > before.items()
        assert len(now) == len(before) + 1
        assert reigning(jobs.store) == expected
    assert kills >= 7
    assert reigning(jobs.store) == expected


def test_a_copy_that_was_damaged_is_mended_by_running_again(jobs: Jobs) -> None:
    jobs.promote("one")
    jobs.store.put(f"registry/{MODEL}/champion/README.md", b"another one")
    jobs.store.put(f"registry/{MODEL}/champion/stray.txt", b"of nobody")
    jobs("promote", RUN_ID="one")
    assert reigning(jobs.store) == "runs/one/lora"


def test_what_the_history_names_is_not_swept_though_its_manifest_is_gone(jobs: Jobs) -> None:
    for run_id in ("one", "two", "three"):
        jobs.promote(run_id)
    kept = ["runs/one/lora", last(jobs.store).evaluation or "", "runs/two/lora"]
    for path in (*kept, "runs/four/lora"):
        jobs.store.put(f"{path}/some-file", b"some bytes")
        jobs.store.delete(f"{path}/MANIFEST.json")
    aged(jobs.folder / "artifacts")
    before = {stored.key for stored in jobs.store.list("")}
    jobs("prune", PRUNE_ALL_RUNS="true", PRUNE_DRY_RUN="false")
    gone = before - {stored.key for stored in jobs.store.list("")}
    assert gone == {"runs/four/lora/some-file"}


def test_a_new_champion_is_told_once_and_a_refused_or_repeated_promotion_tells_its_end_alone(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving() as receiver:
        monkeypatch.setenv("NOTIFY_URL", receiver.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")

        def told() -> list[tuple[str, str]]:
            events = [(event["type"].split(".", 3)[-1], event["subject"]) for event in receiver.events()]
            receiver.requests.clear()
            return events

        jobs.promote("one")
        [changed, ended] = receiver.events()
        assert changed["data"]["entry"] == ended["data"]["artifact"]
        assert changed["data"]["evaluation"] == "runs/one/evaluation/none-promote"
        assert told() == [("champion.changed", "runs/one/lora"), ("job.done", "promote")]
        jobs("promote", RUN_ID="one")
        assert told() == [("job.done", "promote")]
        jobs.promote("two")
        told()
        jobs("rollback")
        assert told() == [("champion.changed", "runs/one/lora"), ("job.done", "rollback")]
        jobs("retire", RETIRE_LORAS="runs/two/lora", RETIRE_REASON="asked for")
        assert told() == [("job.done", "retire")]  # it was not the champion
        jobs("retire", RETIRE_LORAS="runs/one/lora", RETIRE_REASON="asked for")
        assert told() == [("champion.changed", MODEL), ("job.done", "retire")]
