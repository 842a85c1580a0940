"""The history of a model: what its entries say together, and who reigned before whom."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.artifacts import layout
from service.artifacts.history import History, append, digest_of
from service.artifacts.kinds import registry
from service.artifacts.kinds.registry import Entry
from service.settings.promote import ChangeSettings, ci_run
from service.storage.interface import StoredObject
from service.storage.local import LocalStore

MODEL = "pixel-art"
ROLLBACK = "rollback"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "artifacts")


def promoted(history: History, version: str) -> Entry:
    return Entry(lora=f"runs/{version}/lora", version=version, promotion=history.number + 1)


def grown(history: History, entry: Entry) -> History:
    return History(history.model, (*history.entries, entry), (*history.digests, digest_of(entry.to_bytes())))


def test_what_is_appended_is_read_again_by_number_and_content(store: LocalStore) -> None:
    for version in ("a", "b"):
        history = History.read(store, MODEL)
        entry = promoted(history, version)
        assert append(store, history, entry) == entry
    history = History.read(store, MODEL)
    assert [entry.version for entry in history.entries] == ["a", "b"]
    assert history.key(2) == f"registry/{MODEL}/00000002-{digest_of(store.get(history.key(1)))}.json"
    assert registry.models(store) == [MODEL]
    assert registry.named(store) == {"runs/a/lora", "runs/b/lora"}


def test_who_writes_on_a_history_that_has_grown_gets_what_stands_there(store: LocalStore) -> None:
    old = History.read(store, MODEL)
    first, late = promoted(old, "a"), promoted(old, "b")
    append(store, old, first)
    assert append(store, old, late) == first
    assert History.read(store, MODEL).entries == (first,)


def test_a_listing_that_shows_a_later_entry_and_no_earlier_one_is_made_again(tmp_path: Path) -> None:
    class Growing(LocalStore):
        """A store of which the first listing begins before the second entry is there, and ends when the third is."""

        listings = 0

        def list(self, prefix: str) -> Iterator[StoredObject]:
            self.listings += 1
            found = list(super().list(prefix))
            return iter([*found[:1], *found[2:]] if self.listings == 1 else found)

    store = LocalStore(tmp_path)
    for version in ("a", "b", "c"):
        history = History.read(store, MODEL)
        append(store, history, promoted(history, version))
    growing = Growing(tmp_path)
    assert [entry.version for entry in History.read(growing, MODEL).entries] == ["a", "b", "c"]
    assert growing.listings == 2


def test_on_a_volume_without_hard_links_entries_are_agreed_on(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store.honours_conditions()

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    assert not store.honours_conditions()
    history = History.read(store, MODEL)
    entry = promoted(history, "a")
    assert append(store, history, entry) == entry
    assert append(store, history, promoted(history, "b")) == entry
    assert History.read(store, MODEL).entries == (entry,)
    assert any(layout.Ballot.parse(stored.key) for stored in store.list(""))


def test_an_entry_of_the_first_version_had_no_more_than_a_path() -> None:
    entry = Entry.from_bytes(b'{"schema_version": 1, "lora": "runs/local/lora"}', "registry/m/00000001-0.json")
    assert (entry.action, entry.lora, entry.scale) == ("promote", "runs/local/lora", 1.0)


@given(st.lists(st.sampled_from(["a", "b", "c", "d", ROLLBACK]), max_size=12))
def test_rolling_back_goes_through_earlier_champions_only_and_ends(changes: list[str]) -> None:
    history = History(MODEL, (), (digest_of(b""),))
    for change in changes:
        if change != ROLLBACK:
            history = grown(history, promoted(history, change))
        elif best := history.next_best():
            history = grown(history, Entry(action="rollback", **best.of_the_lora()))
    before, steps = history.champion, 0
    while best := history.next_best():
        assert before is not None
        assert best.promotion < before.promotion
        assert best.version != before.version
        history = grown(history, Entry(action="rollback", **best.of_the_lora()))
        before, steps = best, steps + 1
    assert steps <= len(changes)


@given(st.sets(st.sampled_from("abcd")))
def test_the_next_best_is_none_of_those_that_are_withdrawn(withdrawn: set[str]) -> None:
    history = History(MODEL, (), (digest_of(b""),))
    for version in "abcd":
        history = grown(history, promoted(history, version))
    best = history.next_best(withdrawn)
    assert (best.version if best else None) == max({"a", "b", "c"} - withdrawn, default=None)


def test_who_makes_a_change_is_said_or_the_ci_run_or_the_user() -> None:
    github = {"GITHUB_RUN_ID": "7", "GITHUB_REPOSITORY": "team/style", "GITHUB_SERVER_URL": "https://git.example"}
    assert ci_run(github) == "https://git.example/team/style/actions/runs/7"
    assert ci_run({"CI_JOB_URL": "https://gitlab/1"}) == "https://gitlab/1"
    assert ci_run({"BUILD_URL": "https://jenkins/1"}) == "https://jenkins/1"
    assert ChangeSettings().who({"USER": "somebody"}) == "somebody"
    assert ChangeSettings(by="me").who(github) == "me"
    assert ChangeSettings().who({}) != ""
