"""Data preparation that is killed, and data preparation in several processes: the data set is the same one."""

import csv
import json
import random
import time
from pathlib import Path
from typing import Any

import pytest

from service.artifacts.publishing import list_artifacts
from service.dataset.preparation import Preparation
from service.exits import BadData, ExitCode, MissingInput
from service.jobs import data_prep
from service.storage.opening import open_store
from tests.conftest import use
from tests.integration.bing import Answer, Web
from tests.integration.chain import SECONDS, finish, start, warm_up
from tests.pictures import encoded, png, sprite
from tests.servers import S3Server

pytestmark = pytest.mark.filterwarnings(r"ignore:unclosed file .*imagefolder/.*:ResourceWarning")

IMAGES = 120
KILLS = 20


def url_of(rank: int) -> str:
    return f"http://images{rank % 20}.example.com/{rank}.png"


def wide_web(web: Web, file: Path, count: int = IMAGES) -> None:
    """A list of URLs with captions: good images, copies of them in and across shards, and failures of each kind."""
    rows = []
    for seed in range(count):
        url = url_of(seed)
        web.answers[url] = Answer(body=png(seed))
        if seed % 17 == 3:
            web.answers[url] = Answer(
                body=encoded(sprite(seed - 3, (80, 72)), "PNG")
            )  # a larger copy of an earlier one
        if seed % 19 == 5:
            web.answers[url] = Answer(body=png(seed - 5))
        if seed % 23 == 7:
            web.answers[url] = Answer(404)
        if seed % 29 == 11:
            web.answers[url] = Answer(500, then=Answer(body=png(seed)))
        if seed % 31 == 13:
            web.answers[url] = Answer(body=b"<html>")
        rows.append([url, f"a thing, number {seed}"])
    with file.open("w", newline="") as sink:
        csv.writer(sink).writerows([["url", "caption"], *rows])


def variables(file: Path, **more: str) -> dict[str, str]:
    return {
        "MODEL_BASE": "miniature",
        "DATA_PREP_SOURCE": "urls",
        "DATA_PREP_URLS": str(file),
        "DATA_PREP_LIMIT": "75",
        "DATA_PREP_CANDIDATES": str(IMAGES),
        "DATA_PREP_CAPTIONER": "sidecar",
        "DATA_PREP_FETCH_CONCURRENCY": "8",
        "DATA_PREP_FETCH_TIMEOUT": "20",
        **more,
    }


def only_dataset(folder: Path) -> str:
    [path] = list_artifacts(open_store(str(folder / "artifacts")), "datasets")
    return path


def kept_outcomes(folder: Path) -> set[int]:
    """The ranks of candidates that were done: their outcome is stored, and their picture, if they have one."""
    return {line["rank"] for line in stored_outcomes(folder) if line["features"] is None or picture_of(line, folder)}


def stored_outcomes(folder: Path) -> list[dict[str, Any]]:
    files = (folder / "artifacts" / "runs").rglob("outcomes/*.jsonl")
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def images_of_nobody(folder: Path) -> set[str]:
    """Images without an outcome, which the next start would fetch again; none where clearing away has begun."""
    known = {line["features"]["sha256"] for line in stored_outcomes(folder) if line["features"]}
    images = {file.stem for file in folder.rglob("preparation/*/images/*.png")}
    return set() if list(folder.rglob("preparation/*/published/*.json")) else images - known


def picture_of(line: dict[str, Any], folder: Path) -> list[Path]:
    name = f"thumbnails/{line['rank']:08}.png" if line["reason"] else f"images/{line['features']['sha256']}.png"
    return list((folder / "artifacts" / "runs").rglob(name))


def test_killed_twenty_times_it_publishes_the_same_and_fetches_nothing_twice(web: Web, tmp_path: Path) -> None:
    wide_web(web, tmp_path / "list.csv")
    settings = variables(tmp_path / "list.csv")
    web.latency = 0.1
    warm_up()
    begin = time.monotonic()
    assert finish("data-prep", tmp_path / "whole", settings).code == ExitCode.DONE
    duration = time.monotonic() - begin
    undisturbed = only_dataset(tmp_path / "whole")

    web.requests.clear()  # what was asked for in the undisturbed run does not count
    dice = random.Random(7)
    kills = runs = asked_again = unknown = interrupted = 0
    while kills < KILLS:
        folder = tmp_path / f"run {runs}"
        ended = None
        stored: set[int] = set()
        while ended is None:
            before = requests_of(web, stored)
            process = start("data-prep", folder, settings).process
            process.join(dice.uniform(0.1, 0.8) * duration if kills < KILLS else SECONDS)
            ended = process.exitcode
            process.kill()
            process.join(SECONDS)
            asked_again += requests_of(web, stored) - before
            stored = kept_outcomes(folder)
            unknown += ended is None and len(images_of_nobody(folder))
            kills += ended is None
            interrupted += ended is None and 0 < len(stored) < IMAGES
        assert ended == ExitCode.DONE
        assert only_dataset(folder) == undisturbed
        runs += 1
    assert (asked_again, unknown) == (0, 0)
    assert interrupted >= KILLS // 4  # while it was collecting; the other kills fell before and after


def requests_of(web: Web, ranks: set[int]) -> int:
    """How often the candidates of these ranks were asked for until now."""
    wanted = {url_of(rank) for rank in ranks}
    return sum(url in wanted for url in list(web.requests))


@pytest.mark.parametrize("write", ["keep_outcomes", "keep_png"])
def test_what_is_stored_is_not_fetched_again_whichever_write_was_the_last(
    write: str, web: Web, prepare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide_web(web, tmp_path / "list.csv", 2)
    common = {"source": "urls", "urls": str(tmp_path / "list.csv"), "captioner": "sidecar", "min_images": 2}

    def dies(*_: object) -> None:
        raise KeyError("the power went")

    with monkeypatch.context() as patched:
        patched.setattr(Preparation, write, dies)
        with pytest.raises(KeyError):
            prepare(**common, fetch_concurrency=1)
    images = len(list((tmp_path / "artifacts").rglob("preparation/*/images/*.png")))
    before = len(web.requests)
    prepare(**common)
    assert len(web.requests) - before == 2 - images


@pytest.mark.parametrize("place", ["folder", "moto"])
def test_one_two_and_five_shards_give_the_identical_data_set(
    place: str, web: Web, prepare: Any, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide_web(web, tmp_path / "list.csv", 120)
    uri = str(tmp_path / "artifacts")
    if place == "moto":
        server: S3Server = request.getfixturevalue("moto")
        use(server, monkeypatch)
        uri = f"s3://{server.new_bucket()}/team"
    common = {
        "source": "urls",
        "urls": str(tmp_path / "list.csv"),
        "limit": 70,
        "candidates": 120,
        "artifacts_uri": uri,
        "captioner": "sidecar",
    }
    versions = set()
    for count in (1, 2, 5):
        web.requests.clear()
        values = {**common, "run_id": f"in-{count}", "shards": count}
        for index in reversed(range(count)):
            assert prepare(**values, step="shard", shard=index) is None
        versions.add(prepare(**values, step="finalize"))
    versions.add(prepare(**common, run_id="at-once"))
    assert len(versions) == 1


def test_captions_do_not_depend_on_the_shards_either(web: Web, prepare: Any, tmp_path: Path) -> None:
    wide_web(web, tmp_path / "list.csv", 40)
    rows = [line.partition(",")[0] for line in (tmp_path / "list.csv").read_text().splitlines()]
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    common = {"source": "urls", "urls": str(tmp_path / "list.csv"), "limit": 30}
    alone = prepare(**common, artifacts_uri=str(tmp_path / "alone"))
    sharded = {**common, "artifacts_uri": str(tmp_path / "sharded"), "shards": 3}
    for index in range(3):
        prepare(**sharded, step="shard", shard=index)
    assert prepare(**sharded, step="finalize") == alone


def test_finalize_refuses_until_every_shard_is_done(web: Web, prepare: Any, tmp_path: Path) -> None:
    wide_web(web, tmp_path / "list.csv", 30)
    three = {"source": "urls", "urls": str(tmp_path / "list.csv"), "captioner": "sidecar", "shards": 3}
    prepare(**three, step="shard", shard=1)
    with pytest.raises(MissingInput, match="2 of 3 shards are not done: 0, 2;"):
        prepare(**three, step="finalize")
    with pytest.raises(MissingInput, match="1 of 1 shards"):
        prepare(**{**three, "shards": 1}, step="finalize")
    assert list_artifacts(open_store(str(tmp_path / "artifacts")), "datasets") == []
    for index in (0, 2):
        prepare(**three, step="shard", shard=index)
    assert prepare(**three, step="finalize") == f"datasets/8-bit-illustration/{Path(only_dataset(tmp_path)).name}"


def test_a_shard_of_another_list_of_candidates_counts_as_not_done(web: Web, prepare: Any, tmp_path: Path) -> None:
    wide_web(web, tmp_path / "list.csv", 30)
    two = {"source": "urls", "urls": str(tmp_path / "list.csv"), "captioner": "sidecar", "shards": 2}
    prepare(**two, step="shard", shard=0)
    [candidates] = (tmp_path / "artifacts").rglob("candidates.jsonl")
    lines = candidates.read_text().splitlines(keepends=True)
    candidates.write_text("".join(lines[:-1]))  # as if two pods had written their lists to a store without conditions
    prepare(**two, step="shard", shard=1)
    with pytest.raises(MissingInput, match="1 of 2 shards are not done: 0;"):
        prepare(**two, step="finalize")


def test_a_shard_that_does_not_exist_is_a_bad_configuration(tmp_path: Path) -> None:
    wrong = variables(tmp_path / "list.csv", DATA_PREP_SHARDS="3", DATA_PREP_STEP="shard", JOB_COMPLETION_INDEX="3")
    end = finish("data-prep", tmp_path, wrong)
    assert end.code == ExitCode.BAD_CONFIGURATION
    assert "JOB_COMPLETION_INDEX" in end.last("failed")["error"]
    together = variables(tmp_path / "list.csv", DATA_PREP_SHARDS="3")
    assert "DATA_PREP_STEP" in finish("data-prep", tmp_path, together).last("failed")["error"]


def test_what_was_down_is_asked_again_by_the_next_attempt_and_what_is_gone_is_not(
    web: Web, prepare: Any, tmp_path: Path
) -> None:
    wide_web(web, tmp_path / "list.csv", 30)
    down, gone = url_of(1), url_of(7)
    web.answers[down] = Answer(503)
    common = {"source": "urls", "urls": str(tmp_path / "list.csv"), "fetch_timeout": 1, "captioner": "sidecar"}
    with pytest.raises(Exception, match="MIN_IMAGES"):
        prepare(**common, min_images=100)
    assert web.asked(gone) == 1
    before = {url: web.asked(url) for url in web.answers}
    web.answers[down] = Answer(body=png(1))
    path = prepare(**common)
    assert {url for url in web.answers if web.asked(url) > before[url]} == {down}
    lines = (tmp_path / "artifacts" / path / "provenance" / "candidates.jsonl").read_text().splitlines()
    assert {entry["origin"]: entry["reason"] for entry in map(json.loads, lines)}[down] is None


def test_what_an_older_version_has_done_is_not_done_again(web: Web, prepare: Any, tmp_path: Path) -> None:
    wide_web(web, tmp_path / "list.csv", 30)
    common = {"source": "urls", "urls": str(tmp_path / "list.csv"), "captioner": "sidecar"}
    with pytest.raises(BadData, match="MIN_IMAGES"):
        prepare(**common, min_images=100)
    for file in (tmp_path / "artifacts").rglob("outcomes/*.jsonl"):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        for line in lines:
            if line["features"]:
                del line["features"]["lossless"]  # which it did not know
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked = len(web.requests)
    prepare(**common)
    assert len(web.requests) == asked


def test_a_finished_preparation_is_not_done_again_and_leaves_no_copies(web: Web, prepare: Any, tmp_path: Path) -> None:
    wide_web(web, tmp_path / "list.csv", 30)
    common = {"source": "urls", "urls": str(tmp_path / "list.csv"), "captioner": "sidecar"}
    path = prepare(**common)
    asked = len(web.requests)
    assert prepare(**common) == path
    assert len(web.requests) == asked
    assert not list((tmp_path / "artifacts" / "runs").rglob("*.png"))
    assert not list((tmp_path / "work").iterdir())


def test_a_twin_that_comes_too_late_finds_what_the_other_one_published(
    web: Web, prepare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide_web(web, tmp_path / "list.csv", 30)
    common = {"source": "urls", "urls": str(tmp_path / "list.csv"), "captioner": "sidecar"}
    held_out = data_prep.held_out
    published: list[str] = []

    def slow(*arguments: Any) -> frozenset[str]:
        monkeypatch.setattr(data_prep, "held_out", held_out)
        published.append(prepare(**common))  # the twin, from beginning to end, while this one was not looking
        return held_out(*arguments)

    monkeypatch.setattr(data_prep, "held_out", slow)
    assert prepare(**common) == only_dataset(tmp_path) == published[0]


def test_what_a_kill_left_uncleared_is_cleared_by_the_next_start(web: Web, prepare: Any, tmp_path: Path) -> None:
    wide_web(web, tmp_path / "list.csv", 30)
    common = {"source": "urls", "urls": str(tmp_path / "list.csv"), "captioner": "sidecar"}
    path = prepare(**common)
    [preparation] = (tmp_path / "artifacts" / "runs" / "local" / "preparation").iterdir()
    (preparation / "images").mkdir(exist_ok=True)
    (preparation / "images" / "left.png").write_bytes(b"left")
    assert prepare(**common) == path
    assert not (preparation / "images" / "left.png").exists()
