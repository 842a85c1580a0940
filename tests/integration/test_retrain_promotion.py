"""What `retrain` makes of evaluations: promoted once, judged again when another champion came in between, never for ever."""

from pathlib import Path

import pytest

from service.artifacts.history import History, append
from service.artifacts.kinds.lora import read as read_lora
from service.artifacts.kinds.registry import Entry
from service.artifacts.runs import Run
from service.exits import Rejected
from service.jobs import evaluate as judging
from service.jobs.retrain import TRIES, decided
from service.settings.evaluate import EvaluateSettings
from service.settings.retrain import RetrainSettings
from service.storage.local import LocalStore
from tests.releases import MODEL, evaluated, trained


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "artifacts")


class Judge:
    """Stands for `evaluate`: publishes an evaluation against the champion of now; before it is back, others promote theirs."""

    def __init__(self, store: LocalStore, rivals: int, decision: str = "promote") -> None:
        self.store, self.rivals, self.decision, self.calls = store, rivals, decision, 0

    def __call__(self, settings: EvaluateSettings) -> str:
        self.calls += 1
        path = evaluated(self.store, settings.run_id, History.read(self.store, MODEL).champion, decision=self.decision)
        if self.calls <= self.rivals:
            promoted(self.store, f"rival-{self.calls}")
        return path


def promoted(store: LocalStore, run_id: str) -> None:
    """Another LoRA is the champion from here on."""
    history, lora = History.read(store, MODEL), read_lora(store, trained(store, run_id))
    facts = {"lora": lora.path, "version": lora.version, "promotion": history.number + 1, "evaluation": "theirs"}
    append(store, history, Entry.made_now(action="promote", **facts))


def decide(store: LocalStore, judge: Judge, monkeypatch: pytest.MonkeyPatch) -> tuple[str, int | None]:
    monkeypatch.setattr(judging, "evaluate", judge)
    places = {"artifacts_uri": str(store.root), "work_dir": store.root.parent / "work"}
    settings = RetrainSettings(**places, model=MODEL)
    return decided(Run(store, "ours"), trained(store, "ours"), EvaluateSettings(**places, run_id="ours"), settings)


def test_when_the_champion_changes_meanwhile_the_lora_is_judged_again_against_the_new_one(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Judge(store, rivals=2)
    path, entry = decide(store, judge, monkeypatch)
    champion = History.read(store, MODEL).champion
    assert (judge.calls, entry) == (3, 3)
    assert champion is not None
    assert (champion.lora, champion.previous, champion.evaluation) == ("runs/ours/lora", "runs/rival-2/lora", path)


def test_where_it_changes_each_time_it_is_given_up_with_nothing_changed(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Judge(store, rivals=100)
    with pytest.raises(Rejected, match=f"changed {TRIES} times"):
        decide(store, judge, monkeypatch)
    assert (judge.calls, History.read(store, MODEL).number) == (TRIES, TRIES)


@pytest.mark.parametrize("decision", ["hold", "reject"])
def test_what_the_evaluation_does_not_promote_is_not_promoted_and_judged_once(
    decision: str, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Judge(store, rivals=0, decision=decision)
    assert decide(store, judge, monkeypatch)[1] is None
    assert (judge.calls, History.read(store, MODEL).number) == (1, 0)


def test_what_reigned_before_another_is_neither_judged_nor_promoted_again(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = decide(store, Judge(store, rivals=0), monkeypatch)
    promoted(store, "rival")
    judge = Judge(store, rivals=0)
    assert decide(store, judge, monkeypatch) == once
    assert (judge.calls, History.read(store, MODEL).number) == (0, 2)


def test_a_lora_that_was_withdrawn_is_refused_in_the_words_of_promote(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = read_lora(store, trained(store, "ours")).version
    withdrawn = Entry.made_now(action="retire", lora=None, retired={version: "runs/ours/lora"})
    append(store, History.read(store, MODEL), withdrawn)
    judge = Judge(store, rivals=0)
    with pytest.raises(Rejected, match="withdrawn from the registry"):
        decide(store, judge, monkeypatch)
    assert judge.calls == 1
