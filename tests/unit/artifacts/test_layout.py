"""Paths of the store: what builds one and what parses it agree, and retention looks where artifacts are and nowhere else."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.artifacts import layout, preparation_layout
from service.artifacts.layout import swept_folder
from service.artifacts.places import Place
from service.exits import BadConfiguration

PLACES = (*layout.PLACES, *preparation_layout.PLACES)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
SPECIAL = {
    "version": st.from_regex(r"[0-9a-f]{16}", fullmatch=True),
    "revision": st.from_regex(r"[0-9a-f]{40}", fullmatch=True),
    "model": st.lists(names, min_size=1, max_size=2).map("/".join),
    "digest": st.from_regex(r"[0-9a-f]{8}", fullmatch=True),
}
PATHS_OF_BEFORE = {
    "runs/local/checkpoints/step-00000500/0123456789ab": layout.Checkpoint("local", 500, "0123456789ab"),
    "runs/local/lora": layout.Lora("local"),
    "runs/local/capped/step-00000020": layout.CappedLora("local", 20),
    "runs/local/samples/step-00000020": layout.Samples("local", 20),
    "runs/local/images/0123456789ab": layout.Images("local", "0123456789ab"),
    "runs/local/unprompted/0123456789ab": layout.Unprompted("local", "0123456789ab"),
    "runs/local/champion/0123456789ab": layout.Rival("local", "0123456789ab"),
    "runs/local/strengths/0123456789ab": layout.Tried("local", "0123456789ab"),
    "runs/local/evaluation/0123456789ab": layout.Evaluation("local", "0123456789ab"),
    "runs/local/retraining/0123456789ab": layout.Retraining("local", "0123456789ab"),
    "runs/local/drawing/0123456789ab": layout.Drawing("local", "0123456789ab"),
    "runs/local/tensorboard/0123456789ab": layout.Tensorboard("local", "0123456789ab"),
    "runs/local/dataset.json": layout.DatasetNote("local"),
    "runs/local/status.json": layout.StatusNote("local"),
    "runs/local/config.json": layout.ConfigNote("local"),
    "runs/local/COMPLETE.json": layout.CompleteNote("local"),
    "runs/local/spent.json": layout.SpentNote("local"),
    "runs/local/attempts/20260101T000000000000-a.json": layout.AttemptNote("local", "20260101T000000000000-a"),
    "runs/local/preparation/k/candidates.jsonl": preparation_layout.Candidates("local", "k"),
    "runs/local/preparation/k/outcomes/00000042-01234567.jsonl": preparation_layout.Outcomes(
        "local", "k", 42, "01234567"
    ),
    "runs/local/preparation/k/images/0123.png": preparation_layout.CanonicalImage("local", "k", "0123"),
    "runs/local/preparation/k/thumbnails/00000042.png": preparation_layout.Thumbnail("local", "k", 42),
    "runs/local/preparation/k/shards/00001-of-00005.jsonl": preparation_layout.Shard("local", "k", 1, 5),
    "runs/local/preparation/k/published/r.json": preparation_layout.PublishedNote("local", "k", "r"),
    "datasets/8-bit/0123456789abcdef": layout.Dataset("8-bit", "0123456789abcdef"),
    "cache/latents/0123456789ab/0123456789abcdef": layout.Latents("0123456789ab", "0123456789abcdef"),
    "cache/prompts/0123456789ab/0123456789abcdef": layout.Prompts("0123456789ab", "0123456789abcdef"),
    "cache/captions/0123/4567.jsonl": layout.Captions("0123", "4567"),
    "models/stabilityai/sd-vae-ft-mse/31f26fdeee1355a5": layout.Model("stabilityai/sd-vae-ft-mse", "31f26fdeee1355a5"),
    "registry/pixel-art/00000017-01234567.json": layout.RegistryEntry("pixel-art", 17, "01234567"),
}


def places() -> st.SearchStrategy[Place]:
    return st.one_of([st.builds(place, **{field.name: part(field.name, field.type) for field in fields(place)}) for place in PLACES])  # type: ignore[arg-type]  # fmt: skip  # noqa: E501


def part(name: str, kind: object) -> st.SearchStrategy[object]:
    return st.integers(0, 10**9) if kind is int else SPECIAL.get(name, names)


def test_every_kind_of_path_stands_in_one_of_the_two_layouts() -> None:
    assert set(PLACES) == set(Place.__subclasses__())


@given(places())
def test_every_path_is_parsed_into_what_it_was_built_of(place: Place) -> None:
    assert type(place).parse(place.path) == place
    assert type(place).around(f"{place.path}/some/file") == place


@given(places(), places())
def test_a_path_is_taken_for_one_of_another_kind_only_where_their_forms_are_the_same(one: Place, other: Place) -> None:
    again = type(other).parse(one.path)
    assert again is None or again.path == one.path


@pytest.mark.parametrize("path", PATHS_OF_BEFORE)
def test_the_paths_are_those_of_every_store_that_was_ever_written(path: str) -> None:
    place = PATHS_OF_BEFORE[path]
    assert (place.path, type(place).parse(path)) == (path, place)


@given(places())
def test_retention_sweeps_folders_of_artifacts_and_of_drawings_and_no_others(place: Place) -> None:
    in_one = [kind for kind in PLACES if kind.swept and (kind.parse(place.path) or kind.around(place.path))]
    assert swept_folder(f"{place.path}/MANIFEST.json") == (place.path if place.swept else expected(place, in_one))


def expected(place: Place, in_one: list[type[Place]]) -> str | None:
    """The folder of a drawing for its sides; None for whatever lies in no such folder."""
    if not in_one:
        return None
    around = in_one[0].parse(place.path) or in_one[0].around(place.path)
    return around.path if around else None


def test_notes_captions_and_preparations_are_swept_by_nobody() -> None:
    kept = [path for path, place in PATHS_OF_BEFORE.items() if not type(place).swept]
    assert len(kept) == 14
    assert {swept_folder(path) for path in kept} == {None}


@pytest.mark.parametrize(
    "place",
    [layout.Lora(".."), layout.Lora("a/b"), layout.Lora(""), layout.Dataset("a", "1"), layout.Checkpoint("a", -1, "b")],
    ids=repr,
)
def test_a_part_that_leaves_its_place_gives_no_path(place: Place) -> None:
    with pytest.raises(BadConfiguration):
        _ = place.path


def test_no_other_module_spells_a_path_of_the_store() -> None:
    first = "|".join(sorted({place.template.partition("/")[0] for place in PLACES}))
    of_a_run = {place.template.split("/")[2] for place in PLACES if place.template.startswith("runs/{run}/")}
    folders = "|".join(sorted(name for name in of_a_run if "." not in name))
    # Model folders have a config.json of their own.
    notes = "|".join(sorted(re.escape(name) for name in of_a_run - {"config.json"} if "." in name))
    spelt = re.compile(rf"""["'](?:{first})/|[\w}}]/(?:{folders})["'/]|["'](?:{folders})/|["'/](?:{notes})["']""")
    layouts = {Path(layout.__file__), Path(preparation_layout.__file__)}
    service = Path(layout.__file__).parents[1]
    found = [
        f"{path.relative_to(service)}: {line.strip()}"
        for path in sorted(service.rglob("*.py"))
        if path not in layouts
        for line in path.read_text(encoding="utf-8").splitlines()
        if spelt.search(line) and "modelspec." not in line  # a name that the LoRA file has to bear
    ]
    assert found == []
