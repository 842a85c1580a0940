"""Who captions what, and that nobody says anything twice."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from structlog.testing import capture_logs

from service.dataset.candidates import Candidate, Reason, Record
from service.dataset.captions import captioners
from service.dataset.captions.captioning import CaptionCache, captions_for, in_batches, read_ahead
from service.dataset.notes import Note
from service.exits import BadData, OutOfDeviceMemory
from service.settings.data_prep import DataPrepSettings
from service.storage.local import LocalStore
from tests.pictures import sprite
from tests.unit.dataset.records import record


def image_of(one: Record) -> Image.Image:
    return sprite(one.candidate.rank)


def settings(**values: Any) -> DataPrepSettings:
    return DataPrepSettings.model_validate(
        {"source": "folder", "folder": "x", "model_base": "miniature", "style": "pixels", "caption_batch": 2, **values}
    )


def texts_for(records: Sequence[Record], *arguments: Any) -> dict[str, str]:
    return captions_for(records, *arguments).texts


class Counting:
    """A captioner that says a number, and notes which images it saw at once."""

    key = "counting"

    def __init__(self) -> None:
        self.batches: list[int] = []

    def describe(self, images: Sequence[Image.Image]) -> list[str]:
        self.batches.append(len(images))
        return [f"number {sum(self.batches)} {index}" for index in range(len(images))]


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    captioner = Counting()
    monkeypatch.setattr(captioners, "open_captioner", lambda _: captioner)
    return captioner


def test_an_image_is_described_once_whatever_the_style_and_the_run(tmp_path: Path, counting: Counting) -> None:
    store = LocalStore(tmp_path)
    records = [record(rank) for rank in range(5)]
    first = texts_for(records, image_of, settings(), store)
    assert counting.batches == [2, 2, 1]
    assert [text.split(",")[0] for text in first.values()] == ["pixels"] * 5
    again = texts_for([*records, record(9)], image_of, settings(style="dots"), store)
    assert counting.batches == [2, 2, 1, 1]
    assert {sha256: text.replace("dots", "pixels") for sha256, text in again.items()}.items() >= first.items()


def test_the_owner_s_captions_are_kept_and_only_the_others_are_described(tmp_path: Path, counting: Counting) -> None:
    records = [
        record(0, caption="a pixel art of a cat"),
        record(1),
        record(2, caption="None"),
        Record(Candidate(3, "x"), Reason.DNS),
    ]
    captions = texts_for(records, image_of, settings(style=""), LocalStore(tmp_path))
    assert captions == {records[0].sha256: "a pixel art of a cat", records[1].sha256: "number 1 0"}
    assert counting.batches == [1]


def test_nobody_describes_an_image_where_the_captions_are_to_come_with_them(tmp_path: Path, counting: Counting) -> None:
    records = [record(0, caption="a cat"), record(1)]
    captions = texts_for(records, image_of, settings(captioner="sidecar"), LocalStore(tmp_path))
    assert captions == {records[0].sha256: "pixels, a cat"}
    assert counting.batches == []


def test_a_caption_is_cut_to_what_the_text_encoder_reads_and_that_is_counted(tmp_path: Path) -> None:
    with capture_logs() as events:
        captions, notes = captions_for(
            [record(0, caption="a red cat, " * 60)], image_of, settings(), LocalStore(tmp_path)
        )
    from transformers import AutoTokenizer

    from service import miniature

    tokenizer = AutoTokenizer.from_pretrained(miniature.STABLE_DIFFUSION, subfolder="tokenizer")
    [text] = captions.values()
    assert text.startswith("pixels, a red cat, a red cat")
    assert tokenizer.model_max_length - 4 <= len(tokenizer(text).input_ids) <= tokenizer.model_max_length
    assert [event["cut_to_fit"] for event in events if event["event"] == "captions changed"] == [1]
    assert notes == {Note.CUT_TO_FIT: 1}


def test_a_kill_costs_no_more_than_the_batch_under_way(tmp_path: Path, counting: Counting) -> None:
    describe = counting.describe

    def dies(images: Sequence[Image.Image]) -> list[str]:
        if len(counting.batches) == 2:
            raise KeyboardInterrupt
        return describe(images)

    counting.describe = dies  # type: ignore[method-assign]
    records = [record(rank) for rank in range(6)]
    with pytest.raises(KeyboardInterrupt):
        texts_for(records, image_of, settings(), LocalStore(tmp_path))
    counting.describe = describe  # type: ignore[method-assign]
    texts_for(records, image_of, settings(), LocalStore(tmp_path))
    assert counting.batches == [2, 2, 2]


def test_a_damaged_entry_of_the_cache_is_as_good_as_none(tmp_path: Path) -> None:
    cache = CaptionCache(LocalStore(tmp_path), "key")
    cache.remember({"a": "a cat", "b": "a dog"})
    cache.remember({"c": "a\ntree é"})
    for file in tmp_path.rglob("*.jsonl"):
        if "dog" in file.read_text():
            file.write_bytes(file.read_bytes()[:-9])
    (tmp_path / "cache/captions/key/other.jsonl").write_bytes(b"\xff[]\n")
    with capture_logs() as events:
        assert cache.known(["a", "c", "x"]) == {"c": "a\ntree é"}
    assert len(events) == 2
    assert CaptionCache(LocalStore(tmp_path), "another").known(["c"]) == {}


def named(names: str) -> list[tuple[str, Any]]:
    """Pairs as `in_batches` takes them; a name does as well as an image."""
    return [(name, name) for name in names]


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_batches_are_halved_until_they_fit_and_no_image_is_lost(error: RuntimeError) -> None:
    sizes = []

    def fits_three(batch: Sequence[Any]) -> list[str]:
        sizes.append(len(batch))
        if len(batch) > 3:
            raise error
        return [item.upper() for item in batch]

    done = [pair for batch in in_batches(iter(named("abcdefghij")), 8, fits_three) for pair in batch.items()]
    assert done == [(letter, letter.upper()) for letter in "abcdefghij"]
    assert sizes == [8, 4, 2, 2, 2, 2, 2]


def test_an_image_that_does_not_fit_alone_is_an_error_that_says_so() -> None:
    def never_fits(_: Sequence[Any]) -> list[str]:
        raise torch.OutOfMemoryError

    with pytest.raises(OutOfDeviceMemory):
        list(in_batches(named("ab"), 2, never_fits))


def test_another_failure_is_no_matter_of_the_batch() -> None:
    def broken(_: Sequence[Any]) -> list[str]:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        list(in_batches(named("ab"), 2, broken))


def test_images_are_read_ahead_in_their_order_and_never_too_many() -> None:
    started: list[str] = []

    def read(name: str) -> Any:
        started.append(name)
        return name

    names = [str(number) for number in range(20)]
    with ThreadPoolExecutor(4) as readers:
        for number, image in enumerate(read_ahead(names, read, 5, readers)):
            assert image == names[number]
            assert len(started) <= number + 5
    assert len(started) == 20


def test_a_captioner_that_does_not_load_is_named(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for captioner in ("blip", "image-text-to-text"):
        values = settings(captioner=captioner, model_captioner=str(tmp_path / "model"))
        with pytest.raises(BadData, match="MODEL_CAPTIONER"):
            texts_for([record(0)], image_of, values, LocalStore(tmp_path))


def test_the_owner_s_lines_become_one_and_a_text_without_blanks_is_cut_too(tmp_path: Path) -> None:
    lines, long, chinese = "a cat\n\non a wall\n", "word " * 120, "海上的一艘红船" * 20
    records = [
        record(0, caption=lines),
        record(1, caption=long),
        record(2, caption=chinese),
        record(3, caption=" a dog\n"),
    ]
    captions, notes = captions_for(records, image_of, settings(style="pixels"), LocalStore(tmp_path))
    from transformers import AutoTokenizer

    from service import miniature

    tokenizer = AutoTokenizer.from_pretrained(miniature.STABLE_DIFFUSION, subfolder="tokenizer")
    first, second, third, fourth = captions.values()
    assert (first, fourth) == ("pixels, a cat on a wall", "pixels, a dog")
    assert second.startswith("pixels, word word")
    assert third.startswith("pixels, 海上的一艘红船")
    for text in (second, third):
        assert tokenizer.model_max_length - 4 <= len(tokenizer(text).input_ids) <= tokenizer.model_max_length
    assert notes == {Note.LINES_JOINED: 1, Note.CUT_TO_FIT: 2}


def test_what_is_cut_of_a_captioner_s_words_is_counted(
    tmp_path: Path, counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [
        "a cat on top of a hat on top of a hat",
        "arafed man with a hat",
        "a dog",
        "araffes standing in a field",
    ]
    monkeypatch.setattr(counting, "describe", lambda images: [words.pop(0) for _ in images])
    with capture_logs() as events:
        captions, notes = captions_for([record(rank) for rank in range(4)], image_of, settings(), LocalStore(tmp_path))
    assert list(captions.values()) == [
        "pixels, a cat on top of a hat", "pixels, man with a hat", "pixels, a dog", "pixels, standing in a field"
    ]  # fmt: skip
    assert notes == {Note.LOOPS_CUT: 1, Note.INVENTED_WORDS_CUT: 2}
    assert [event["loops_cut"] for event in events if event["event"] == "captions changed"] == [1]
