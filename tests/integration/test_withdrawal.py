"""retire with an image: what descends from it is withdrawn, no data set holds it any more, and a kill is healed."""

from pathlib import Path

import pytest

from service.artifacts.history import History
from service.artifacts.kinds.exclusions import read_all
from service.exits import ExitCode
from service.jobs import retire as retiring
from service.lineage.withdrawn import withdrawn_images
from service.storage.opening import open_store
from tests.releases import MODEL, Jobs, copied, entries, evaluated, reigning, trained
from tests.unit.lineage.records import Published, publish
from tests.unit.lineage.records import entry as entry_of
from tests.watched import Killed, Mortal, MortalWithConditions

URL = "https://a.example/x.png"


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Jobs:
    return Jobs(tmp_path, monkeypatch, capsys)


@pytest.fixture
def of_an_image(jobs: Jobs) -> Jobs:
    """Two champions that descend from an image, one in a model of its own, one that was never promoted, and one of others."""
    held = entry_of(0, URL, file_name="train/0.png", sha256="1" * 64, source_sha256="2" * 64)
    path = publish(
        jobs.store, jobs.folder / "dataset", Published({"train/0.png": "a cat", "validation/1.png": "a"}, [held])
    )
    jobs.promote("one")
    jobs.promote("two", path)
    jobs("promote", RUN_ID="two", PROMOTE_MODEL="other", PROMOTE_FORCE="for the test")
    jobs.promote("three", path)
    trained(jobs.store, "never-promoted", path)
    return jobs


WITHDRAWN_IMAGE = {"RETIRE_IMAGE": URL, "RETIRE_REASON": "asked for by its owner", "PROMOTE_MODEL": ""}


def test_whatever_descends_from_an_image_is_withdrawn_and_no_data_set_may_hold_it_any_more(of_an_image: Jobs) -> None:
    store = of_an_image.store
    of_an_image("retire", **WITHDRAWN_IMAGE)
    assert (reigning(store), reigning(store, "other")) == ("runs/one/lora", None)
    for model in (MODEL, "other"):
        entry = History.read(store, model).entries[-1]
        assert set(entry.retired.values()) == {f"runs/{run_id}/lora" for run_id in ("two", "three", "never-promoted")}
        assert entry.reason == "asked for by its owner"
    [record] = read_all(store)
    assert (record.reason, record.images[0].name) == ("asked for by its owner", URL)
    assert {"1" * 64, "2" * 64, URL} <= set(record.images[0].marks)
    before = {stored.key for stored in store.list("")}
    of_an_image("retire", **WITHDRAWN_IMAGE)
    assert {stored.key for stored in store.list("")} == before


def test_an_image_is_excluded_where_nothing_descends_from_it(of_an_image: Jobs) -> None:
    before = entries(of_an_image.store)
    of_an_image("retire", RETIRE_IMAGE="F" * 64, RETIRE_REASON="r")
    assert entries(of_an_image.store) == before
    assert [one.images[0].marks for one in read_all(of_an_image.store)] == [["f" * 64]]


def test_with_an_image_that_is_missing_or_a_wrong_lora_beside_it_nothing_changes(of_an_image: Jobs) -> None:
    before = {stored.key for stored in of_an_image.store.list("")}
    for code, wrong, told in (
        (ExitCode.MISSING_INPUT, {"RETIRE_IMAGE": "/no/such.png"}, "RETIRE_IMAGE"),
        (ExitCode.MISSING_INPUT, {"RETIRE_IMAGE": "f" * 64, "RETIRE_LORAS": "runs/none/lora"}, "RETIRE_LORAS"),
        (ExitCode.BAD_CONFIGURATION, {"RETIRE_REASON": ""}, "RETIRE_REASON"),
        (ExitCode.BAD_CONFIGURATION, {"RETIRE_IMAGE": ""}, "RETIRE_IMAGE"),
        (ExitCode.BAD_CONFIGURATION, {"RETIRE_LOOK_ALIKES": "perhaps"}, "RETIRE_LOOK_ALIKES"),
    ):
        assert told in of_an_image("retire", code, **(WITHDRAWN_IMAGE | wrong))
        assert {stored.key for stored in of_an_image.store.list("")} == before


def test_what_cannot_be_read_is_told_after_the_rest_was_withdrawn(of_an_image: Jobs) -> None:
    of_an_image.store.put("runs/never-promoted/lora/MANIFEST.json", b"{")
    assert "runs/never-promoted/lora" in of_an_image("retire", ExitCode.BAD_DATA, **WITHDRAWN_IMAGE)
    assert (reigning(of_an_image.store), len(read_all(of_an_image.store))) == ("runs/one/lora", 1)


def test_a_lora_that_descends_from_a_withdrawn_image_is_promoted_nowhere_any_more_but_by_force(
    of_an_image: Jobs,
) -> None:
    jobs = of_an_image
    jobs("retire", **WITHDRAWN_IMAGE)
    evaluated(jobs.store, "never-promoted")
    refused = jobs("promote", ExitCode.REJECTED, RUN_ID="never-promoted", PROMOTE_MODEL="newer")
    assert "trained on train/0.png of datasets/blocks/" in refused
    assert "asked for by its owner" in refused
    assert entries(jobs.store, "newer") == {}
    jobs("promote", RUN_ID="never-promoted", PROMOTE_MODEL="newer", PROMOTE_FORCE="its owner agrees now")
    assert "withdrawn since" in History.read(jobs.store, "newer").entries[-1].overruled
    jobs.promote("four")


def test_an_image_that_was_left_out_or_whose_data_set_is_gone_speaks_against_no_lora(of_an_image: Jobs) -> None:
    left_out = entry_of(0, URL, reason="too_small", sha256="1" * 64)
    captions = {"train/1.png": "a dog", "validation/1.png": "a"}
    path = publish(of_an_image.store, of_an_image.folder / "other", Published(captions, [left_out]), "other")
    of_an_image("retire", **WITHDRAWN_IMAGE)
    assert withdrawn_images(of_an_image.store, path) == {}
    assert withdrawn_images(of_an_image.store, "datasets/gone/0123456789abcdef") == {}


@pytest.mark.parametrize("kind", [Mortal, MortalWithConditions], ids=["agreed on", "conditional writes"])
def test_a_withdrawal_of_an_image_that_is_killed_before_any_write_is_healed_by_running_again(
    kind: type[Mortal], of_an_image: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, kills, killed = of_an_image, 0, True
    while killed:
        jobs.store = open_store(str(copied(jobs.folder / "artifacts", jobs.folder / "copy")))
        mortal = kind(jobs.store, kills + 1)
        with monkeypatch.context() as patch:
            patch.setattr(retiring, "open_store", lambda _, mortal=mortal: mortal)
            try:
                jobs("retire", **WITHDRAWN_IMAGE)
                killed = False
            except Killed:
                kills += 1
        jobs("retire", **WITHDRAWN_IMAGE)
        assert (reigning(jobs.store), reigning(jobs.store, "other")) == ("runs/one/lora", None)
        assert [len(entries(jobs.store, model)) for model in (MODEL, "other")] == [4, 2]
        assert len(read_all(jobs.store)) == 1
    assert kills >= 10
