"""What a manifest promises about the content of an artifact."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from service.artifacts.manifest import MANIFEST_NAME, FileEntry, Manifest, content_version, describe
from service.exits import BadData, MissingInput

names = st.from_regex(r"[a-z][a-z0-9_ é]{0,8}\.[a-z]{3}", fullmatch=True)
contents = st.binary(max_size=40)
files = st.dictionaries(names, contents, min_size=1, max_size=5)
entries = st.lists(
    st.builds(FileEntry, path=names, size=st.integers(0, 2**40), sha256=st.from_regex(r"[0-9a-f]{64}", fullmatch=True)),
    min_size=1,
    unique_by=lambda entry: entry.path,
)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def manifest_of(content: dict[str, bytes], kind: str = "dataset", **settings: object) -> Manifest:
    with tempfile.TemporaryDirectory() as folder:
        for name, data in content.items():
            Path(folder, name).write_bytes(data)
        return describe(Path(folder), kind=kind, parents=[], settings=settings)


@given(entries, st.randoms())
def test_the_version_does_not_depend_on_the_order_of_files(listed: list[FileEntry], random: object) -> None:
    shuffled = list(listed)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert content_version("dataset", shuffled) == content_version("dataset", listed)


@given(files, st.dictionaries(st.text(), plain, max_size=3))
def test_the_version_does_not_depend_on_settings(content: dict[str, bytes], settings: dict[str, object]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, data in content.items():
            Path(folder, name).write_bytes(data)
        set_up = describe(Path(folder), kind="dataset", parents=["x"], settings=settings)
    assert set_up.version == manifest_of(content).version
    assert Manifest.model_validate_json(set_up.to_bytes()).to_bytes() == set_up.to_bytes()


@given(files, st.data())
def test_any_changed_byte_changes_the_version(content: dict[str, bytes], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(content)))
    changed = data.draw(contents.filter(lambda other: other != content[name]))
    assert manifest_of({**content, name: changed}).version != manifest_of(content).version


@given(files, names, names)
def test_a_new_name_or_another_kind_changes_the_version(content: dict[str, bytes], old: str, new: str) -> None:
    content = {**content, old: b"1"}
    renamed = {new if name == old else name: data for name, data in content.items()}
    assert (manifest_of(renamed).version == manifest_of(content).version) == (renamed == content)
    assert manifest_of(content, "lora").version != manifest_of(content).version


@given(files)
def test_describing_the_same_folder_twice_gives_the_same_bytes(content: dict[str, bytes]) -> None:
    assert manifest_of(content, size=64, zoom=1.5).to_bytes() == manifest_of(content, zoom=1.5, size=64).to_bytes()


outside = st.lists(st.sampled_from(["..", ".", "", "a", "b.png"]), max_size=5).map("/".join)


@given(outside)
def test_a_path_is_accepted_exactly_when_it_stays_below_the_artifact(path: str) -> None:
    plain_parts = path != "" and all(part not in ("", ".", "..") for part in path.split("/"))
    try:
        FileEntry(path=path, size=0, sha256="0" * 64)
    except ValidationError:
        assert not plain_parts
    else:
        assert plain_parts


@pytest.mark.parametrize("path", ["/etc/passwd", "../a", "a/../../b", "a\\..\\b", "a\0b", "a\nb", ".sdlora-tmp-x"])
def test_a_path_that_leaves_the_artifact_is_refused(path: str) -> None:
    with pytest.raises(ValidationError, match="no path inside an artifact"):
        FileEntry(path=path, size=0, sha256="0" * 64)


def test_a_manifest_whose_version_is_not_its_content_is_refused() -> None:
    content = json.loads(manifest_of({"a.png": b"1"}).to_bytes())
    content["files"][0]["sha256"] = "0" * 64
    with pytest.raises(ValidationError, match="not the hash of the listed files"):
        Manifest.model_validate(content)


def test_a_manifest_tells_no_time_and_no_place_of_the_machine() -> None:
    content = json.loads(manifest_of({"a.png": b"1"}, target=Path("x")).to_bytes())
    assert sorted(content) == [
        "code_version",
        "files",
        "kind",
        "libraries",
        "parents",
        "schema_version",
        "settings",
        "version",
    ]
    assert content["settings"] == {"target": "x"}


def test_the_versions_of_the_libraries_are_noted_without_importing_them() -> None:
    program = (
        "import sys; from service.artifacts.manifest import library_versions as versions; "
        "print(sorted(versions()), {'torch', 'numpy', 'boto3'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    libraries = ["accelerate", "boto3", "datasets", "diffusers", "numpy", "peft", "pillow", "torch", "transformers"]
    assert done.stdout.strip() == f"{libraries} set()"


def test_a_manifest_that_lies_in_the_folder_is_not_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"1")
    before = describe(tmp_path, kind="dataset", parents=[], settings={})
    (tmp_path / MANIFEST_NAME).write_bytes(before.to_bytes())
    assert describe(tmp_path, kind="dataset", parents=[], settings={}) == before


def test_an_empty_or_a_missing_folder_is_not_published(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="is empty"):
        describe(tmp_path, kind="dataset", parents=[], settings={})
    with pytest.raises(MissingInput, match="is no folder"):
        describe(tmp_path / "none", kind="dataset", parents=[], settings={})


def test_a_name_that_no_store_can_hold_is_refused_before_anything_is_stored(tmp_path: Path) -> None:
    (tmp_path / "two\nlines.png").write_bytes(b"1")
    with pytest.raises(BadData, match="rename it"):
        describe(tmp_path, kind="dataset", parents=[], settings={})
