"""From an image to all that descends from it."""

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from service import miniature
from service.artifacts import layout
from service.artifacts.documents import WrittenByNewer
from service.artifacts.kinds import checkpoint, evaluation, images, lora
from service.artifacts.kinds.dataset import Provenance
from service.artifacts.kinds.exclusions import reasons
from service.artifacts.kinds.registry import Entry
from service.artifacts.publishing import read_manifest
from service.dataset.images.formats import formats_with
from service.dataset.images.screening import screen
from service.exits import MissingInput
from service.lineage.recognition import How
from service.lineage.sought import Sought, sought
from service.lineage.trace_text import tables
from service.lineage.tracing import Trace, archive_of, exclusion_of, trace
from service.settings.data_prep import DataPrepSettings
from service.storage.local import LocalStore
from service.storage.parallel import never_stop
from tests.pictures import encoded, png, sprite
from tests.unit.lineage.records import Published, entry, publish

URL = "https://a.example/x.png"
X, Y = png(0), png(1)


def decoded(rank: int, origin: str, content: bytes, name: str | None, **facts: Any) -> Provenance:
    """What data-prep tells of a candidate with this content."""
    found = screen(content, DataPrepSettings(source="folder", folder="x", side=facts.pop("side", None))).features
    known = {"sha256": found.sha256, "source_sha256": found.source_sha256, "phash": f"{found.phash:016x}"}
    known |= {"dhash": f"{found.dhash:016x}", "colour": f"{found.colour:06x}", "file_name": name}
    return entry(rank, origin, **{**known, **facts})


@dataclass(frozen=True)
class Made:
    """A store in which everything has a descendant, and the folder beside it."""

    store: LocalStore
    folder: Path

    def dataset(self, name: str, *entries: Provenance, **content: Any) -> str:
        captions = {one.file_name: "a cat" for one in entries if one.file_name} | {"validation/z.png": name}
        return publish(self.store, self.folder / name, Published(captions, entries, **content), name)

    def files(self, name: str, *files: str) -> Path:
        for file in files:
            (self.folder / name / file).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name / file).write_bytes(f"{name} {file}".encode())
        return self.folder / name

    def lora(self, run: str, dataset: str) -> str:
        folder = self.files(f"lora-{run}", "weights")
        return lora.write(self.store, folder, run_id=run, dataset=dataset, recipe={"resolution": 64}).path

    def drawn(self, run: str, of: str) -> str:
        folder = self.files(f"drawn-{run}", "base/00000.png", "lora/00000.png", "lora/00001.png", "grid.png")
        path = layout.Images(run, "0" * 12).path
        return images.write(self.store, folder, path=path, lora=of, recipe={"lora": of}).path

    def evaluated(self, run: str, of: str, dataset: str) -> str:
        path = layout.Evaluation(run, "0" * 12).path
        folder = self.files(f"evaluated-{run}", "evaluation.json")
        return evaluation.write(self.store, folder, path=path, parents=[of, dataset], recipe={"lora": of}).path

    def promoted(self, model: str, number: int, path: str) -> None:
        self.store.put(layout.RegistryEntry(model, number, "0" * 16).path, Entry(lora=path).to_bytes())

    def trace(self, image: Sought | str, *, look_alikes: bool = True) -> Trace:
        wanted = sought(image, "TRACE_IMAGE") if isinstance(image, str) else image
        return trace(wanted, archive_of(self.store, never_stop), look_alikes=look_alikes)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(LocalStore(tmp_path / "artifacts"), tmp_path)


def hows(found: Trace) -> dict[str, list[How]]:
    return {dataset.path: [image.how for image in dataset.images] for dataset in found.datasets}


def test_an_image_is_followed_to_data_set_lora_champion_pictures_evaluation_and_checkpoint(made: Made) -> None:
    one = made.dataset("one", decoded(0, URL, X, "train/0.png"))
    other = made.dataset("other", decoded(0, "https://a.example/y.png", Y, "train/0.png"))
    of_one, of_other = made.lora("first", one), made.lora("second", other)
    drawn, evaluated = made.drawn("first", of_one), made.evaluated("first", of_one, one)
    kept = checkpoint.write(
        made.store, made.files("checkpoint", "weights"), run_id="first", step=5, recipe={"dataset": one}
    )
    made.drawn("second", of_other)
    for number, path in enumerate((of_one, of_other, of_one), start=1):
        made.promoted("style", number, path)
    made.promoted("older", 1, of_one)
    made.promoted("older", 2, of_other)

    found = made.trace(URL)
    assert hows(found) == {one: [How.ADDRESS]}
    assert (found.loras, found.evaluations, found.others, found.unreadable) == ([of_one], [evaluated], [kept], [])
    assert [(drawing.path, drawing.pictures) for drawing in found.drawn] == [
        (drawn, ["grid.png", "lora/00000.png", "lora/00001.png"])
    ]
    assert [(champion.model, champion.number, champion.reigns) for champion in found.champions] == [
        ("older", 1, False), ("style", 1, False), ("style", 3, True),
    ]  # fmt: skip
    assert Trace.from_bytes(found.to_bytes(), "here") == found


def test_a_champion_whose_lora_has_gone_to_another_path_is_known_by_its_version(made: Made) -> None:
    trained = made.lora("first", made.dataset("one", decoded(0, URL, X, "train/0.png")))
    version = read_manifest(made.store, trained).version
    for number, of in enumerate((version, "0" * 64), start=1):
        entry = Entry(lora="runs/before/lora", version=of)
        made.store.put(layout.RegistryEntry("style", number, "0" * 16).path, entry.to_bytes())
    assert [champion.number for champion in made.trace(URL).champions] == [1]


def test_it_is_recognised_by_address_page_file_and_pixels_and_the_file_in_the_data_set(made: Made) -> None:
    path = made.dataset("one", decoded(0, f"{URL}?size=large", X, "train/0.png", page="https://a.example/page"))
    known = decoded(0, URL, X, None)
    stored = hashlib.sha256(b"the picture train/0.png of one").hexdigest()
    named = {
        f"{URL}?size=large": How.ADDRESS,
        f"{URL}?size=large#top": How.ADDRESS,
        "https://a.example/page": How.PAGE,
        known.source_sha256: How.FILE,
        known.sha256.upper(): How.PIXELS,
        stored: How.FILE,
    }
    assert {name: hows(made.trace(name)) for name in named} == {name: {path: [how]} for name, how in named.items()}
    assert not made.trace("https://a.example/other.png").descends
    assert not made.trace("0" * 64).descends


def test_a_file_is_found_by_what_its_pixels_are_in_each_data_set(made: Made, tmp_path: Path) -> None:
    small = made.dataset("small", decoded(0, "a.png", X, "train/0.png", side=16, source_sha256=""), recipe={"side": 16})
    whole = made.dataset("whole", decoded(0, "b.png", X, "train/0.png", source_sha256=""))
    (tmp_path / "x.bmp").write_bytes(encoded(sprite(0), "BMP"))
    assert hows(made.trace(str(tmp_path / "x.bmp"), look_alikes=False)) == {small: [How.PIXELS], whole: [How.PIXELS]}


def test_a_copy_in_another_size_and_format_is_found_by_its_look_where_that_is_wanted(
    made: Made, tmp_path: Path
) -> None:
    path = made.dataset("one", decoded(0, URL, X, "train/0.png"), decoded(1, "y.png", Y, "train/1.png"))
    made.dataset("strict", decoded(0, URL, X, "train/0.png"), recipe={"near_distance": 0})
    (tmp_path / "x.jpeg").write_bytes(encoded(sprite(0, (80, 72)), "JPEG", quality=30))
    assert hows(made.trace(str(tmp_path / "x.jpeg"))) == {path: [How.LOOK]}
    assert hows(made.trace(str(tmp_path / "x.jpeg"), look_alikes=False)) == {}


def test_what_is_known_of_an_image_by_its_address_finds_it_where_it_came_from_elsewhere(made: Made) -> None:
    copy = encoded(sprite(0, (80, 72)), "JPEG", quality=90)
    first = made.dataset("first", decoded(0, URL, X, "train/0.png"))
    second = made.dataset("second", decoded(0, "same.png", X, "validation/0.png"))
    third = made.dataset("third", decoded(0, "copy.jpeg", copy, "train/0.png"))
    assert hows(made.trace(URL)) == {first: [How.ADDRESS], second: [How.PIXELS], third: [How.LOOK]}


def test_what_was_kept_in_place_of_a_duplicate_counts_and_what_was_left_out_holds_nothing(made: Made) -> None:
    kept, left = "https://b.example/large.png", "https://c.example/none.png"
    path = made.dataset(
        "one",
        entry(0, URL, reason="dup_near", kept=kept),
        entry(1, kept, file_name="train/1.png", sha256="1" * 64),
        entry(2, left, reason="http_status"),
        entry(3, f"{kept}#again", reason="dup_url", kept=kept),
        entry(4, kept, reason="dup_url", kept=kept),
    )
    made.dataset("other", entry(0, kept, file_name="train/0.png", sha256="2" * 64))
    found = made.trace(URL)
    assert hows(found) == {path: [How.ADDRESS, How.DUPLICATE]}
    assert found.descends
    seen = made.trace(left)
    assert (seen.descends, [dataset.holds for dataset in seen.datasets]) == (False, [False])
    assert [image.how for image in made.trace(URL, look_alikes=False).datasets[0].images] == [How.ADDRESS]


def test_a_data_set_made_of_another_descends_by_its_images_and_one_made_of_drawn_pictures_as_a_whole(
    made: Made,
) -> None:
    first = made.dataset("first", entry(0, URL, file_name="train/0.png", sha256="0" * 64))
    again = made.dataset("again", entry(0, "train/0.png", file_name="train/0.png"), parents=[first])
    without = made.dataset("without", entry(0, "train/9.png", file_name="train/9.png"), parents=[first])
    unrelated = made.dataset("unrelated", entry(0, "train/0.png", file_name="train/0.png"))
    drawn = made.drawn("first", made.lora("first", first))
    of_drawn = made.dataset("of-drawn", entry(0, "lora/00000.png", file_name="train/0.png"), parents=[drawn])
    found = made.trace(URL)
    assert hows(found) == {first: [How.ADDRESS], again: [How.TAKEN], of_drawn: []}
    assert not {without, unrelated} & hows(found).keys()
    assert made.lora("last", of_drawn) in made.trace(URL).loras


def test_a_data_set_without_provenance_is_known_by_its_files(made: Made) -> None:
    path = publish(made.store, made.folder / "bare", Published({"train/0.png": "a", "validation/1.png": "b"}), "bare")
    stored = hashlib.sha256(b"the picture train/0.png of bare").hexdigest()
    assert hows(made.trace(stored)) == {path: [How.FILE]}
    table = made.store.get(f"{path}/imagefolder/train/metadata.csv")
    assert not made.trace(hashlib.sha256(table).hexdigest()).datasets


def test_what_cannot_be_read_is_told_for_it_may_descend_as_well(made: Made) -> None:
    path = made.dataset("one", decoded(0, URL, X, "train/0.png"))
    trained = made.lora("first", path)
    made.store.put(f"{trained}/MANIFEST.json", b"{")
    made.promoted("style", 1, trained)
    key = layout.RegistryEntry("style", 1, "0" * 16).path
    made.store.put(key, b"{")
    found = made.trace(URL)
    assert [text.partition(":")[0] for text in found.unreadable] == [key, trained]
    made.store.put(key, b'{"schema_version": 99}')
    with pytest.raises(WrittenByNewer):
        made.trace(URL)


def test_a_file_that_shows_nothing_is_looked_for_by_its_bytes_and_a_missing_one_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no picture")
    assert sought(str(tmp_path / "x.png"), "TRACE_IMAGE").marks == {hashlib.sha256(b"no picture").hexdigest()}
    with pytest.raises(MissingInput, match="TRACE_IMAGE"):
        sought(str(tmp_path / "none.png"), "TRACE_IMAGE")


def test_a_file_is_looked_at_where_the_decoders_of_further_formats_are_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("pi_heif", "PIL._avif"):
        monkeypatch.setitem(sys.modules, module, None)
    formats_with.cache_clear()
    (tmp_path / "x.png").write_bytes(X)
    assert sought(str(tmp_path / "x.png"), "TRACE_IMAGE").picture is not None


def test_the_record_that_withdraws_it_names_all_that_any_data_set_knows_it_by(made: Made) -> None:
    copy = encoded(sprite(0, (80, 72)), "JPEG", quality=90)
    made.dataset(
        "one", decoded(0, URL, X, "train/0.png"), decoded(1, "copy.jpeg", copy, None, reason="dup_near", kept=URL)
    )
    record = exclusion_of(made.trace(URL), "asked for")
    known = [decoded(0, URL, content, None) for content in (X, copy)]
    looks = {f"{one.phash}:{one.dhash}:{one.colour}" for one in known}
    stored = hashlib.sha256(b"the picture train/0.png of one").hexdigest()
    hashes = {hashed for one in known for hashed in (one.sha256, one.source_sha256)}
    assert set(record.images[0].marks) == {URL, stored, *hashes, *looks}
    assert set(reasons([record]).values()) == {"asked for"}


def test_the_record_names_the_address_without_its_fragment_for_that_is_the_same_image(made: Made) -> None:
    made.dataset("one", decoded(0, f"{URL}#top", X, "train/0.png"))
    marks = exclusion_of(made.trace(decoded(0, URL, X, None).sha256), "asked for").images[0].marks
    assert {URL, f"{URL}#top"} <= set(marks)


def test_a_terminal_shows_all_of_it(made: Made) -> None:
    path = made.dataset("one", decoded(0, URL, X, "validation/0.png"))
    trained = made.lora("first", path)
    made.drawn("first", trained)
    made.promoted("style", 1, trained)
    console = Console(width=200)
    with console.capture() as shown:
        console.print(tables(made.trace(URL)))
    text = shown.get()
    assert "data sets that hold it: 1" in text
    assert all(word in text for word in (path, "held out", trained, "style, entry 1", "reigns", "3 files"))
    with console.capture() as shown:
        console.print(tables(made.trace("0" * 64)))
    assert "no data set holds it" in shown.get()


def test_the_samples_that_ship_are_recognised_from_their_own_files(made: Made) -> None:
    file = miniature.SAMPLES / "apple.png"
    path = made.dataset("one", decoded(0, "apple.png", file.read_bytes(), "train/0.png"))
    assert hows(made.trace(str(file)))[path][0] in (How.FILE, How.PIXELS)
