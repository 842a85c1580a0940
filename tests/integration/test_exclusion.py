"""Withdrawn images stay out of every data set that is prepared from then on, and it is told why."""

import csv
import gc
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.artifacts.kinds.exclusions import ExcludedImage, Exclusion, add
from service.artifacts.publishing import read_manifest
from service.exits import BadData, MissingInput
from service.storage.opening import open_store
from tests.integration.bing import Answer, Web
from tests.pictures import encoded, png, sprite

pytestmark = pytest.mark.filterwarnings(r"ignore:unclosed file .*imagefolder/.*:ResourceWarning")
WHY = "asked for by its owner"


@pytest.fixture(autouse=True)
def collect_garbage() -> Iterator[None]:
    """While the filter above is in force, so that no test of another module is blamed."""
    yield
    gc.collect()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Six pictures with captions, and one of them again in another size and format."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed in range(6):
        (folder / f"{seed}.png").write_bytes(png(seed))
    (folder / "copy.jpeg").write_bytes(encoded(sprite(0, (80, 72)), "JPEG", quality=90))
    names = [*(f"{seed}.png" for seed in range(6)), "copy.jpeg"]
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "caption"), *((name, f"a picture, {name}") for name in names)])
    return folder


def lines(store: Path, path: str) -> dict[str, dict[str, Any]]:
    """The provenance of a data set, by the names of the files."""
    content = (store / path / "provenance" / "candidates.jsonl").read_text().splitlines()
    return {entry["origin"]: entry for entry in map(json.loads, content)}


def withdraw(store: Path, *marks: str) -> None:
    add(open_store(str(store)), Exclusion(images=[ExcludedImage(name="x", marks=list(marks))], reason=WHY))


def test_a_withdrawn_image_and_its_copies_are_in_no_data_set_after_that_and_it_is_told_why(
    pictures: Path, prepare: Any, tmp_path: Path
) -> None:
    store, options = tmp_path / "artifacts", {"folder": str(pictures), "captioner": "sidecar"}
    before = prepare(**options)
    known = lines(store, before)
    source = hashlib.sha256((pictures / "copy.jpeg").read_bytes()).hexdigest()
    assert known["copy.jpeg"]["source_sha256"] == source
    assert (known["copy.jpeg"]["reason"], known["0.png"]["reason"]) == (None, "dup_near")

    withdraw(store, source)
    after = prepare(**options)
    found = lines(store, after)
    assert Counter(entry["reason"] for entry in found.values()) == {None: 5, "excluded": 2}
    assert {name: found[name]["detail"] for name in ("copy.jpeg", "0.png")} == {"copy.jpeg": WHY, "0.png": WHY}
    assert "sha256" not in found["copy.jpeg"]
    page = (store / after / "report" / "index.html").read_text()
    assert "excluded" in page
    assert WHY in page
    assert read_manifest(open_store(str(store)), after).settings["exclude"] == [source]
    assert prepare(**options) == after


def test_what_has_nothing_to_do_with_a_data_set_makes_no_other_one_and_is_not_prepared_twice(
    pictures: Path, prepare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"folder": str(pictures), "captioner": "sidecar"}
    before = prepare(**options)
    withdraw(tmp_path / "artifacts", "f" * 64, "https://a.example/x.png")
    assert prepare(**options) == before
    monkeypatch.setattr("service.jobs.data_prep.collect", None)
    assert prepare(**options) == before


def test_with_the_setting_alone_images_are_left_out_by_the_hash_of_their_pixels(
    pictures: Path, prepare: Any, tmp_path: Path
) -> None:
    options = {"folder": str(pictures), "captioner": "sidecar"}
    known = lines(tmp_path / "artifacts", prepare(**options))
    path = prepare(**options, exclude=[known["3.png"]["sha256"]])
    found = lines(tmp_path / "artifacts", path)
    assert (found["3.png"]["reason"], found["3.png"]["detail"]) == ("excluded", "DATA_PREP_EXCLUDE")


def test_an_address_that_is_withdrawn_is_not_even_asked(web: Web, prepare: Any, tmp_path: Path) -> None:
    urls = [f"http://images.example.com/{seed}.png" for seed in range(5)]
    web.answers = {url: Answer(body=png(seed)) for seed, url in enumerate(urls)}
    (tmp_path / "list.csv").write_text("url,caption\n" + "".join(f"{url},a picture\n" for url in urls))
    withdraw(tmp_path / "artifacts", urls[1])
    found = lines(tmp_path / "artifacts", prepare(source="urls", urls=str(tmp_path / "list.csv"), captioner="sidecar"))
    assert {url: found[url]["reason"] for url in urls} == dict.fromkeys(urls) | {urls[1]: "excluded"}
    assert [web.asked(url) for url in urls] == [1, 0, 1, 1, 1]


def test_shards_that_left_out_different_images_do_not_go_together(pictures: Path, prepare: Any, tmp_path: Path) -> None:
    options = {"folder": str(pictures), "captioner": "sidecar", "shards": 2}
    prepare(**options, step="shard", shard=0)
    withdraw(tmp_path / "artifacts", hashlib.sha256((pictures / "1.png").read_bytes()).hexdigest())
    prepare(**options, step="shard", shard=1)
    with pytest.raises(MissingInput, match="1 of 2 shards are not done: 0"):
        prepare(**options, step="finalize")
    prepare(**options, step="shard", shard=0)
    found = lines(tmp_path / "artifacts", prepare(**options, step="finalize"))
    assert found["1.png"]["reason"] == "excluded"


def test_a_record_that_cannot_be_read_ends_the_job_before_anything_is_collected(
    pictures: Path, prepare: Any, tmp_path: Path
) -> None:
    withdraw(tmp_path / "artifacts", "f" * 64)
    [record] = (tmp_path / "artifacts" / "exclusions").iterdir()
    record.write_bytes(b"{")
    with pytest.raises(BadData, match="mend it first"):
        prepare(folder=str(pictures), captioner="sidecar")
