"""Records of images that no data set may hold any more."""

from pathlib import Path

import pytest

from service.artifacts import layout
from service.artifacts.documents import WrittenByNewer
from service.artifacts.kinds.exclusions import ExcludedImage, Exclusion, add, read_all, reasons
from service.exits import BadData
from service.storage.local import LocalStore

URL, SHA256, LOOK = "https://a.example/x.png", "0f" * 32, "0123456789abcdef:0123456789abcdef:00ff00"


def exclusion(*marks: str, reason: str = "asked for by its owner") -> Exclusion:
    return Exclusion(images=[ExcludedImage(name="x.png", marks=list(marks))], reason=reason)


def test_a_record_is_kept_once_and_read_as_it_was_written(tmp_path: Path) -> None:
    store, record = LocalStore(tmp_path), exclusion(URL, SHA256, LOOK)
    path = add(store, record)
    assert add(store, record) == path
    assert layout.Exclusion.parse(path)
    other = exclusion(SHA256, reason="another")
    add(store, other)
    assert sorted(read_all(store), key=str) == sorted([record, other], key=str)
    assert read_all(LocalStore(tmp_path / "none")) == []


def test_of_several_reasons_the_first_is_told() -> None:
    assert reasons([exclusion(URL, reason="one"), exclusion(URL, LOOK, reason="two")]) == {URL: "one", LOOK: "two"}


def test_a_record_that_cannot_be_read_is_bad_data_for_it_might_name_any_image(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    path = add(store, exclusion(URL))
    for content in (b"{", b"{}", exclusion(URL).to_bytes().replace(URL.encode(), b"x.png")):
        store.put(path, content)
        with pytest.raises(BadData, match="mend it first"):
            read_all(store)
    store.put(path, b'{"schema_version": 9}')
    with pytest.raises(WrittenByNewer):
        read_all(store)
