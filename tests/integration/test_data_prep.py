"""The job from images to a published data set, with the network played on loopback."""

import csv
import gc
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import boto3
import datasets
import pyarrow
import pyarrow.parquet
import pytest

from service.artifacts.fetching import fetch
from service.artifacts.publishing import list_artifacts, read_manifest
from service.artifacts.runs import Run
from service.dataset import imagefolder
from service.dataset.captions.captioners import BlipCaptioner
from service.exits import BadData, ExitCode, MissingInput, ServiceError, StorageUnreachable
from service.storage.opening import open_store
from tests.conftest import use
from tests.integration.bing import Answer, Web
from tests.pictures import encoded, png, sprite
from tests.servers import S3Server

# `datasets` looks at the first rows of a metadata file, or at an image that turns out broken, and leaves it to the
# garbage collector to close it.
pytestmark = pytest.mark.filterwarnings(r"ignore:unclosed file .*imagefolder/.*:ResourceWarning")


@pytest.fixture(autouse=True)
def collect_garbage() -> Iterator[None]:
    """While the filter above is in force, so that no test of another module is blamed."""
    gc.freeze()  # what was there before, such as all of torch, takes seconds to go through
    yield
    gc.collect()
    gc.unfreeze()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Eight good images in three formats and two folders, and five candidates that are none."""
    folder = tmp_path / "pictures"
    (folder / "train test").mkdir(parents=True)
    for seed in range(4):
        (folder / "train test" / f"sprite {seed}.png").write_bytes(png(seed))
    for seed in range(4, 7):
        (folder / f"{seed}.jpeg").write_bytes(encoded(sprite(seed), "JPEG"))
    (folder / "7.gif").write_bytes(encoded(sprite(7), "GIF"))
    (folder / "copy.bmp").write_bytes(encoded(sprite(0), "BMP"))
    (folder / "page.jpg").write_text("<html>gone</html>")
    (folder / "cut.png").write_bytes(png(8)[:-60])
    (folder / "dot.png").write_bytes(png(9, (1, 1)))
    (folder / "notes.txt").write_text("remember the milk")
    return folder


def provenance(store_uri: Path, path: str) -> list[dict[str, Any]]:
    lines = (store_uri / path / "provenance" / "candidates.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def is_clean(tmp_path: Path) -> bool:
    """Whether a job has published nothing and left no scratch files; what it has collected serves the next attempt."""
    store = open_store(str(tmp_path / "artifacts"))
    return not list_artifacts(store, "") and not list((tmp_path / "work").rglob("*"))


def test_a_folder_becomes_a_data_set_that_loads(pictures: Path, prepare: Any, tmp_path: Path) -> None:
    path = prepare(folder=str(pictures), run_id="spring", validation_share=0.25, style="8-bit illustration")
    store = open_store(str(tmp_path / "artifacts"))
    assert Run(store, "spring").dataset() == path
    manifest = read_manifest(store, path)
    assert path == f"datasets/8-bit-illustration/{manifest.version}"
    assert manifest.kind == "dataset"

    folder = fetch(store, path, tmp_path / "work") / "imagefolder"
    names = set()
    for split, count in (("train", 6), ("validation", 2)):
        with (folder / split / "metadata.csv").open(newline="") as file:
            header, *rows = csv.reader(file)
        assert header == ["file_name", "caption"]
        assert len(rows) == count
        assert {name for name, _ in rows} == {file.name for file in (folder / split).glob("*.png")}
        assert all(caption.startswith("8-bit illustration") for _, caption in rows)
        names |= {f"{split}/{name}" for name, _ in rows}
    loaded = datasets.load_dataset("imagefolder", data_dir=str(folder), cache_dir=str(tmp_path / "cache"))
    assert {split: len(loaded[split]) for split in loaded} == {"train": 6, "validation": 2}
    assert {example["image"].size for example in loaded["train"]} == {(40, 36)}

    entries = provenance(tmp_path / "artifacts", path)
    assert [entry["origin"] for entry in entries] == sorted(
        file.relative_to(pictures).as_posix() for file in pictures.rglob("*") if file.is_file()
    )
    assert {entry["origin"]: entry["reason"] for entry in entries if entry["reason"]} == {
        "train test/sprite 0.png": "dup_exact",
        "cut.png": "truncated",
        "dot.png": "too_small",
        "notes.txt": "not_image",
        "page.jpg": "not_image",
    }
    assert {entry["file_name"] for entry in entries if not entry["reason"]} == names
    assert (folder.parent / "report" / "index.html").stat().st_size > 1000
    assert not [file for file in (tmp_path / "work").iterdir() if file.name != "fetched"]


def test_the_same_images_give_the_same_version_from_anywhere(pictures: Path, prepare: Any, tmp_path: Path) -> None:
    first = prepare(folder=str(pictures))
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "artifacts" / "datasets").rglob("*")}
    copy = tmp_path / "else" / "where"
    shutil.copytree(pictures, copy)
    assert prepare(folder=str(pictures), run_id="second", work_dir=tmp_path / "other") == first
    assert prepare(folder=str(copy), caption_batch=3) == first
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "artifacts" / "datasets").rglob("*")} == files
    assert not list((tmp_path / "other").iterdir())


def test_another_image_gives_another_version(pictures: Path, prepare: Any) -> None:
    first = prepare(folder=str(pictures))
    (pictures / "new.png").write_bytes(png(99))
    assert prepare(folder=str(pictures)) != first


def test_what_the_service_keeps_inside_the_folder_is_no_candidate(pictures: Path, prepare: Any) -> None:
    inside = {"folder": str(pictures), "artifacts_uri": str(pictures / "out"), "work_dir": pictures / "tmp"}
    assert prepare(**inside) == prepare(**inside)


def test_a_published_artifact_can_be_prepared_again(pictures: Path, prepare: Any, tmp_path: Path) -> None:
    first = prepare(folder=str(pictures))
    second = prepare(folder=first, name="again", square="crop")
    assert read_manifest(open_store(str(tmp_path / "artifacts")), second).parents == [first]
    entries = provenance(tmp_path / "artifacts", second)
    assert {(entry["width"], entry["height"]) for entry in entries if not entry["reason"]} == {(36, 36)}


def test_a_prefix_of_a_bucket_is_a_folder(
    pictures: Path, prepare: Any, moto: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(moto, monkeypatch)
    uri = f"s3://{moto.new_bucket()}/ours/pictures"
    for file in pictures.rglob("*"):
        if file.is_file():
            open_store(uri).put(file.relative_to(pictures).as_posix(), file.read_bytes())
    assert prepare(folder=uri) == prepare(folder=str(pictures))
    with pytest.raises(MissingInput, match="DATA_PREP_FOLDER"):
        prepare(folder=f"{uri}/nothing")


def test_a_bucket_may_hold_anything(
    pictures: Path, prepare: Any, moto: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(moto, monkeypatch)
    bucket = moto.new_bucket()
    client = boto3.client("s3")
    odd = ["a//b.png", "a//b.txt", "back\\slash.png", "large.png"]
    for key in [*odd, "by hand/"]:
        client.put_object(Bucket=bucket, Key=f"ours/{key}", Body=png(50) + b"x" * (90_000 if key == "large.png" else 0))
    for file in pictures.glob("*.*"):
        client.upload_file(str(file), bucket, f"ours/{file.name}")
    client.put_object(Bucket=bucket, Key="ours/4.txt", Body=b"a blue tower")
    path = prepare(source="s3", folder=f"s3://{bucket}/ours", fetch_max_bytes=90_000)
    entries = {entry["origin"]: entry for entry in provenance(tmp_path / "artifacts", path)}
    assert {key: entries[key]["reason"] for key in odd if key in entries} == {
        "a//b.png": "blocked_address",
        "back\\slash.png": "blocked_address",
        "large.png": "too_large_bytes",
    }
    assert (
        captions_of(tmp_path / "artifacts" / path)[entries["4.jpeg"]["file_name"]] == "8-bit illustration, a blue tower"
    )


def test_a_list_in_a_bucket_is_read_like_one_on_the_disk(
    web: Web, prepare: Any, moto: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(moto, monkeypatch)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    urls = [f"http://images.example.com/{seed}.png" for seed in range(5)]
    web.answers = {url: Answer(body=png(seed)) for seed, url in enumerate(urls)}
    captions = ["a cat", None, "a dog", "007", None]
    table = pyarrow.table({"URL": urls, "TEXT": captions})
    pyarrow.parquet.write_table(table, tmp_path / "list.parquet")
    rows = zip(["url", *urls], ["caption", *captions], strict=True)
    (tmp_path / "list.csv").write_text("".join(f"{url},{caption or ''}\n" for url, caption in rows))
    uri = f"s3://{moto.new_bucket()}/lists"
    open_store(uri).put("list.parquet", tmp_path / "list.parquet")
    path = prepare(source="urls", urls=f"{uri}/list.parquet")
    assert prepare(source="urls", urls=str(tmp_path / "list.csv")) == path
    by_file = captions_of(tmp_path / "artifacts" / path)
    entries = provenance(tmp_path / "artifacts", path)
    assert [by_file[entries[place]["file_name"]] for place in (0, 2, 3)] == [
        f"8-bit illustration, {caption}" for caption in ("a cat", "a dog", "007")
    ]
    with pytest.raises(MissingInput, match="DATA_PREP_URLS"):
        prepare(source="urls", urls=f"{uri}/lost.csv")


def test_images_that_look_alike_are_on_the_same_side_of_the_split(prepare: Any, tmp_path: Path) -> None:
    (tmp_path / "pairs").mkdir()
    for seed in range(12):
        (tmp_path / "pairs" / f"{seed}.png").write_bytes(png(seed))
        (tmp_path / "pairs" / f"{seed} again.jpg").write_bytes(encoded(sprite(seed, (80, 72)), "JPEG", quality=80))
    path = prepare(folder=str(tmp_path / "pairs"), near_duplicates="keep", validation_share=0.5)
    sides: dict[str, list[str]] = {}
    for entry in provenance(tmp_path / "artifacts", path):
        sides.setdefault(entry["origin"].split(".")[0].split()[0], []).append(entry["file_name"].split("/")[0])
    assert sorted(side * 2 for side in ["train"] * 6 + ["validation"] * 6) == sorted("".join(s) for s in sides.values())


@pytest.mark.parametrize("folder", ["/nowhere/at/all", "./nowhere", "datasets/none/0123456789abcdef"])
def test_a_folder_that_does_not_exist_is_named(folder: str, prepare: Any, tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=f"DATA_PREP_FOLDER={folder}") as error:
        prepare(folder=folder)
    assert error.value.exit_code == ExitCode.MISSING_INPUT
    assert is_clean(tmp_path)


def failure(prepare: Any, tmp_path: Path, **values: Any) -> str:
    with pytest.raises(ServiceError) as error:
        prepare(**values)
    assert error.value.exit_code == ExitCode.BAD_DATA
    assert is_clean(tmp_path)
    return str(error.value)


def test_an_empty_folder_holds_no_image(prepare: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no image" in failure(prepare, tmp_path, folder=str(tmp_path / "empty"))


def test_a_folder_of_broken_images_is_counted_by_reason(pictures: Path, prepare: Any, tmp_path: Path) -> None:
    for file in [file for file in pictures.rglob("*") if file.suffix in (".png", ".gif", ".jpeg", ".bmp")]:
        if file.name not in ("cut.png", "dot.png"):
            file.unlink()
    message = failure(prepare, tmp_path, folder=str(pictures))
    assert "no usable image among 4 candidates; left out: 2 not_image, 1 truncated, 1 too_small" in message


def test_too_few_images_are_counted_against_the_variable(pictures: Path, prepare: Any, tmp_path: Path) -> None:
    message = failure(prepare, tmp_path, folder=str(pictures), min_images=9)
    assert "8 good images" in message
    assert "DATA_PREP_MIN_IMAGES=9" in message
    assert "2 not_image" in message


def test_one_image_cannot_be_both_trained_on_and_held_out(prepare: Any, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.png").write_bytes(png(1))
    assert "hold out" in failure(prepare, tmp_path, folder=str(tmp_path / "one"), min_images=1)


def test_images_without_a_caption_that_can_be_stored_are_left_out(
    pictures: Path, prepare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = iter(["a cat", "null", "12", "a dog", "", *["a tree"] * 3])

    def silent(_: BlipCaptioner, images: list[object]) -> list[str]:
        return [next(words) for _ in images]

    monkeypatch.setattr(BlipCaptioner, "describe", silent)
    path = prepare(folder=str(pictures), style="")
    assert [entry["reason"] for entry in provenance(tmp_path / "artifacts", path)].count("caption_failed") == 2
    shutil.rmtree(tmp_path / "artifacts" / "datasets")
    assert "2 caption_failed" in failure(prepare, tmp_path, folder=str(pictures), style="", min_images=7)


@pytest.mark.parametrize("damage", ["caption", "pixels", "lost", "cut"])
def test_a_data_set_that_does_not_load_back_is_never_published(
    damage: str, pictures: Path, prepare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = imagefolder.write_metadata

    def damaged(rows: Iterable[tuple[str, str]], file: Path) -> None:
        named = list(rows)
        whole(named, file)
        file_name, caption = named[0]
        image = file.parent / file_name
        if damage == "caption":
            file.write_text(file.read_text().replace(caption, "null"))
        elif damage == "pixels":
            image.write_bytes(png(1000))
        elif damage == "lost":
            file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
        else:
            image.write_bytes(image.read_bytes()[:-60])

    monkeypatch.setattr(imagefolder, "write_metadata", damaged)
    failure(prepare, tmp_path, folder=str(pictures), validation_share=0.5)


def test_a_model_that_does_not_load_names_its_variable(pictures: Path, prepare: Any, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(BadData, match="MODEL_CAPTIONER"):
        prepare(folder=str(pictures), model_captioner=str(tmp_path / "model"))
    assert is_clean(tmp_path)


def search(prepare: Any, **values: Any) -> str:
    asked = {"source": "bing", "query": ["8-bit swords & shields"], "limit": 50, "fetch_timeout": 6}
    path: str = prepare(**{**asked, **values})
    return path


def good_links(web: Web, count: int) -> list[str]:
    links = [f"https://images{seed % 3}.example.com/pixel/{seed}.png?w=1&amp;h=2" for seed in range(count)]
    for seed, link in enumerate(links):
        web.answers[link.replace("&amp;", "&")] = Answer(body=png(seed))
    return links


def test_pages_of_the_index_do_not_overlap_and_end(web: Web, prepare: Any, tmp_path: Path) -> None:
    web.links = good_links(web, 20)
    path = search(prepare)
    assert len(provenance(tmp_path / "artifacts", path)) == 20
    pages = [url for url in web.requests if "www.bing.com" in url]
    assert ["&first=0&" in pages[0], "&first=7&" in pages[1], "&first=14&" in pages[2]] == [True] * 3
    assert len(pages) <= 5
    assert len(web.requests) == len(set(web.requests) - set(pages)) + len(pages)


def test_a_silent_index_is_worth_another_attempt_of_the_job(web: Web, prepare: Any, tmp_path: Path) -> None:
    web.index = Answer(500)
    with pytest.raises(StorageUnreachable, match="DATA_PREP_QUERY"):
        search(prepare)
    assert is_clean(tmp_path)


def test_an_index_page_without_end_is_given_up(web: Web, prepare: Any, tmp_path: Path) -> None:
    web.index = Answer(body=b"<html>" + b" " * 65536, endless=True)
    with pytest.raises(StorageUnreachable, match="DATA_PREP_QUERY"):
        search(prepare)
    assert is_clean(tmp_path)


def test_a_search_without_results_holds_no_image(web: Web, prepare: Any, tmp_path: Path) -> None:
    web.links = []
    with pytest.raises(BadData, match="DATA_PREP_QUERY=8-bit swords & shields holds no image"):
        search(prepare)
    assert is_clean(tmp_path)


def test_several_queries_share_the_limit_and_each_image_knows_its_own(web: Web, prepare: Any, tmp_path: Path) -> None:
    web.links = good_links(web, 30)
    path = search(prepare, query=["swords", "shields"], limit=8)
    entries = provenance(tmp_path / "artifacts", path)
    assert [entry["query"] for entry in entries[:6]] == ["swords", "shields"] * 3
    # Both find the same images here: the second to name one has nothing to add.
    assert {entry["query"] for entry in entries if not entry["reason"]} == {"swords"}
    assert {entry["reason"] for entry in entries if entry["query"] == "shields"} == {"dup_url"}
    assert sum(entry["reason"] is None for entry in entries) == 8


def test_a_licence_is_asked_for_and_noted(web: Web, prepare: Any, tmp_path: Path) -> None:
    web.links = good_links(web, 6)
    path = search(prepare, licence="share")
    pages = [url for url in web.requests if "www.bing.com" in url]
    assert all("license-L2_L3_L4_L5_L6_L7" in url for url in pages)
    assert {entry["licence"] for entry in provenance(tmp_path / "artifacts", path)} == {"Bing's filter: share"}


def test_who_forbids_learning_is_heard_unless_told_otherwise(web: Web, prepare: Any, tmp_path: Path) -> None:
    web.links = good_links(web, 6)
    for link in web.links[:2]:
        web.answers[link.replace("&amp;", "&")].headers = {"X-Robots-Tag": "noai"}
    reasons = [entry["reason"] for entry in provenance(tmp_path / "artifacts", search(prepare, run_id="a"))]
    assert reasons.count("robots_noai") == 2
    ignored = search(prepare, run_id="b", fetch_noai="ignore")
    assert {entry["reason"] for entry in provenance(tmp_path / "artifacts", ignored)} == {None}


def test_a_host_is_never_asked_for_more_at_once_than_allowed(web: Web, prepare: Any) -> None:
    web.links = good_links(web, 40)
    web.latency = 0.05
    search(prepare, fetch_per_host=2, fetch_concurrency=32)
    assert web.most_at_once["www.bing.com"] == 1
    assert {web.most_at_once[f"images{host}.example.com"] for host in range(3)} == {2}


def test_a_host_that_others_redirect_to_is_not_asked_for_more_either(web: Web, prepare: Any) -> None:
    web.links = [f"https://short{seed}.example.org/{seed}.png" for seed in range(12)]
    for seed, link in enumerate(web.links):
        web.answers[link] = Answer(302, headers={"Location": f"https://images.example.com/{seed}.png"})
        web.answers[f"https://images.example.com/{seed}.png"] = Answer(body=png(seed))
    web.latency = 0.1
    search(prepare, fetch_per_host=2)
    assert web.most_at_once["images.example.com"] == 2


def test_captions_beside_the_images_are_kept(pictures: Path, prepare: Any, tmp_path: Path) -> None:
    (pictures / "4.txt").write_text("A blue   tower\n")
    (pictures / "metadata.csv").write_text('file_name,caption\n5.jpeg,"8-bit illustration, a red fox"\n')
    path = prepare(folder=str(pictures))
    entries = {entry["origin"]: entry["file_name"] for entry in provenance(tmp_path / "artifacts", path)}
    captions = captions_of(tmp_path / "artifacts" / path)
    assert captions[entries["4.jpeg"]] == "8-bit illustration, A blue tower"
    assert captions[entries["5.jpeg"]] == "8-bit illustration, a red fox"
    assert "4.txt" not in entries
    assert "metadata.csv" not in entries
    again = prepare(folder=path, run_id="again")
    assert sorted(captions_of(tmp_path / "artifacts" / again).values()) == sorted(captions.values())


def captions_of(folder: Path) -> dict[str, str]:
    """Caption by file below imagefolder."""
    rows = {}
    for table in (folder / "imagefolder").glob("*/metadata.csv"):
        with table.open(newline="") as file:
            rows |= {f"{table.parent.name}/{row['file_name']}": row["caption"] for row in csv.DictReader(file)}
    return rows


def test_an_irrelevant_image_is_left_out_by_the_clip(prepare: Any, tmp_path: Path) -> None:
    common = {"folder": "miniature", "limit": 12, "candidates": 12, "model_clip": "miniature", "style": "a red apple"}
    whole = provenance(tmp_path / "artifacts", prepare(**common, run_id="a", min_relevance=0.01))
    scores = sorted(entry["relevance"] for entry in whole if "relevance" in entry)
    strict = provenance(tmp_path / "artifacts", prepare(**common, run_id="b", min_relevance=scores[6]))
    left_out = [entry for entry in strict if entry["reason"] == "irrelevant"]
    assert {entry["relevance"] for entry in left_out} == {score for score in scores if score < scores[6]}
    assert next(entry for entry in strict if entry["origin"] == "apple.png")["reason"] is None
