"""What artifacts and notes say of themselves: written and read in one place, old versions read, newer ones refused."""

import json
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.artifacts import layout, notes
from service.artifacts.documents import WrittenByNewer
from service.artifacts.kinds import checkpoint, dataset, images, lora, rows
from service.artifacts.kinds.dataset import Provenance
from service.artifacts.manifest import describe
from service.artifacts.publishing import exists, publish, read_manifest
from service.artifacts.retention import Keep, plan_retention
from service.artifacts.runs import Run
from service.exits import BadConfiguration, BadData, ExitCode
from service.storage.interface import NotFound
from service.storage.local import LocalStore

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
# Captions are one line: data-prep cleans them of control characters.
captions = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
STATUS_OF_BEFORE = {
    "schemaVersion": 1,
    "runId": "demo",
    "attempt": "a",
    "phase": "complete",
    "step": 200,
    "maxSteps": 200,
    "progressPercentage": 100.0,
    "estimatedRemainingSeconds": 0,
    "metrics": {"loss": 0.1, "learningRate": 0.0, "heldOutLoss": 0.1, "heldOutRatio": 0.9},
    "bestStep": 150,
    "lastCheckpoint": {"step": 200, "path": "runs/demo/checkpoints/step-00000200/a"},
    "lastUpdatedTime": "2026-11-25T12:00:00+00:00",
}


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "artifacts")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "made").mkdir()
    (tmp_path / "made/file").write_bytes(b"content")
    return tmp_path / "made"


WRITERS: dict[str, Callable[[LocalStore, Path], str]] = {
    "dataset": lambda store, folder: dataset.write(store, folder, name="a", parents=["b"], recipe={"style": "s"}).path,
    "checkpoint": lambda store, folder: checkpoint.write(store, folder, run_id="r", step=5, recipe={"seed": 1}),
    "lora": lambda store, folder: lora.write(store, folder, run_id="r", dataset="d", recipe={"resolution": 64}).path,
    "images": lambda store, folder: images.write(store, folder, path="runs/r/images/k", lora="l", recipe={}).path,
    "rows": lambda store, folder: rows.write(store, folder, prefix="cache/latents/f", keys=["a", "b"]).path,
}
READERS: dict[str, Callable[[LocalStore, str], Any]] = {
    "dataset": dataset.read,
    "checkpoint": checkpoint.read,
    "lora": lora.read,
    "images": images.read,
    "rows": rows.read,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_what_is_written_is_read(kind: str, store: LocalStore, folder: Path) -> None:
    path = WRITERS[kind](store, folder)
    found = READERS[kind](store, path)
    manifest = read_manifest(store, path)
    assert (found.path, found.version, found.recipe) == (path, manifest.version, manifest.settings)


def test_each_says_by_name_what_others_want_to_know(store: LocalStore, folder: Path) -> None:
    found = {kind: READERS[kind](store, write(store, folder)) for kind, write in WRITERS.items()}
    assert found["dataset"].style == "s"
    assert found["checkpoint"].step == 5
    assert (found["lora"].dataset, found["lora"].resolution) == ("d", 64)
    assert found["rows"].keys == {"a", "b"}


def test_one_kind_is_never_taken_for_another(store: LocalStore, folder: Path) -> None:
    for kind, write in WRITERS.items():
        path = write(store, folder)
        for other in READERS.keys() - {kind}:
            with pytest.raises(BadConfiguration, match=f"{path}.* is needed there"):
                READERS[other](store, path)


def test_a_lora_from_elsewhere_that_names_no_data_set_is_bad_data(store: LocalStore, folder: Path) -> None:
    publish(store, folder, kind="lora", path="loras/other")
    found = lora.read(store, "loras/other")
    for ask in (lambda: found.dataset, lambda: found.resolution):
        with pytest.raises(BadData, match="loras/other does not say"):
            ask()


# Versions


def newer(manifest: bytes, name: str) -> bytes:
    return json.dumps({**json.loads(manifest), name: 9, "something": "new"}).encode()


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("name", ["schema_version", "kind_schema"])
def test_what_a_newer_version_wrote_is_refused_in_one_line_and_never_taken_for_damaged(
    kind: str, name: str, store: LocalStore, folder: Path
) -> None:
    path = WRITERS[kind](store, folder)
    manifest = store.get(f"{path}/MANIFEST.json")
    content = (
        newer(manifest, name) if name == "schema_version" else json.dumps({**json.loads(manifest), name: 9}).encode()
    )
    store.put(f"{path}/MANIFEST.json", content)
    with pytest.raises(WrittenByNewer, match=r"newer version.*\b9\b") as raised:
        READERS[kind](store, path)
    assert raised.value.exit_code == ExitCode.BAD_CONFIGURATION
    assert "\n" not in str(raised.value)
    assert not isinstance(raised.value, BadData | NotFound)


def test_retention_deletes_nothing_while_it_does_not_understand_a_checkpoint(store: LocalStore, folder: Path) -> None:
    paths = [checkpoint.write(store, folder, run_id="r", step=step, recipe={}) for step in range(1, 6)]
    store.put(f"{paths[0]}/MANIFEST.json", newer(store.get(f"{paths[0]}/MANIFEST.json"), "schema_version"))
    with pytest.raises(WrittenByNewer):
        plan_retention(Run(store, "r"), Keep(2, 0), set(), datetime.now(UTC))
    with pytest.raises(WrittenByNewer):
        exists(store, paths[0])


NOTES: dict[str, tuple[type[notes.Note], dict[str, Any]]] = {
    "dataset.json": (notes.DatasetNote, {"dataset": "datasets/a/0123456789abcdef"}),
    "config.json": (notes.Config, {"rank": 4, "run_id": "demo", "max_steps": 200}),
    "status.json": (notes.Status, STATUS_OF_BEFORE),
    "COMPLETE.json": (
        notes.Complete,
        {"lora": "runs/demo/lora", "steps": 200, "of_step": 150, "held_out_ratio": 0.9, "version": "0123456789abcdef"},
    ),
}


@pytest.mark.parametrize("name", NOTES)
def test_notes_of_before_are_read_and_those_of_a_newer_version_refused(name: str, store: LocalStore) -> None:
    model, content = NOTES[name]
    store.put(f"runs/demo/{name}", json.dumps(content).encode())
    found = model.read(store, "demo")
    dumped = json.loads(found.to_bytes())
    assert {key: dumped[key] for key in content} == {
        **content,
        **({"lastUpdatedTime": dumped["lastUpdatedTime"]} if name == "status.json" else {}),
    }
    found.write(store, "again")
    assert model.read(store, "again") == found
    version = "schemaVersion" if name == "status.json" else "schema_version"
    store.put(f"runs/demo/{name}", json.dumps({**content, version: 2}).encode())
    with pytest.raises(WrittenByNewer, match=f"{name}.*newer version"):
        model.read(store, "demo")


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"dataset": 1}', b"\xff"])
def test_a_note_that_is_none_is_bad_data_with_its_place(content: bytes, store: LocalStore) -> None:
    store.put("runs/demo/dataset.json", content)
    with pytest.raises(BadData, match=r"runs/demo/dataset\.json"):
        notes.DatasetNote.read(store, "demo")


def test_a_manifest_of_the_first_schema_is_written_as_ever(folder: Path) -> None:
    of = {"kind": "lora", "parents": [], "settings": {}}
    plain = describe(folder, **of)  # type: ignore[arg-type]
    assert b"kind_schema" not in plain.to_bytes()
    assert json.loads(describe(folder, kind_schema=2, **of).to_bytes())["kind_schema"] == 2  # type: ignore[arg-type]


# Files


@given(st.lists(captions, max_size=5, unique=True))
def test_captions_come_back_as_they_were_written(written: list[str]) -> None:
    with tempfile.TemporaryDirectory() as place:
        split = Path(place, "imagefolder/train")
        split.mkdir(parents=True)
        named = [(f"{number}.png", caption) for number, caption in enumerate(written)]
        for name, _ in named:
            (split / name).touch()
        dataset.write_metadata(named, split / "metadata.csv")
        assert [(path.name, caption) for path, caption in dataset.read_metadata(Path(place), "train")] == named


@given(
    st.lists(
        st.builds(Provenance, origin=texts, reason=st.none() | texts, detail=texts, rank=st.integers(0)), max_size=3
    )
)
def test_provenance_comes_back_as_it_was_written(entries: list[Provenance]) -> None:
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "provenance").mkdir()
        dataset.write_provenance(entries, Path(place, dataset.PROVENANCE))
        assert dataset.read_provenance(Path(place)) == entries


def test_curves_are_read_as_the_training_measured_them_and_are_empty_for_a_lora_from_elsewhere(tmp_path: Path) -> None:
    assert lora.read_curves(tmp_path) == ([], [])
    lines = [
        {"step": 0, "held_out_loss": 0.5, "held_out_ratio": 1.0, "held_out_loss_100": 0.5},
        {"step": 10, "loss": 0.25, "gradient_norm": 1.0, "learning_rate": 1e-4},
        {"step": 20, "loss": float("nan"), "gradient_norm": 1.0, "learning_rate": 1e-4},
    ]
    lora.write_metrics(lines, tmp_path)
    assert (tmp_path / "metrics.jsonl").read_text() == "".join(json.dumps(line) + "\n" for line in lines)
    loss, held_out = lora.read_curves(tmp_path)
    assert [step for step, _ in loss] == [10, 20]
    assert held_out == [(0, 0.5)]


def test_checkpoints_have_paths_of_their_own(store: LocalStore, folder: Path) -> None:
    one, other = (checkpoint.write(store, folder, run_id="r", step=5, recipe={}) for _ in range(2))
    assert one != other
    assert {layout.Checkpoint.parse(path).step for path in (one, other)} == {5}  # type: ignore[union-attr]
