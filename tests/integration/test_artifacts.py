"""Artifacts in a folder, on moto and on rclone: one behaviour, three stores."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from service.artifacts.fetching import fetch, verify
from service.artifacts.manifest import CLAIM, MANIFEST_NAME
from service.artifacts.publishing import (
    Artifact,
    list_artifacts,
    publish,
    publish_version,
    read_manifest,
)
from service.artifacts.runs import Run
from service.exits import (
    AccessDenied,
    BadConfiguration,
    BadData,
    InputOutput,
    MissingInput,
    Stopped,
    StorageUnreachable,
)
from service.storage import disk
from service.storage.interface import NotFound, ObjectStore, StoredObject
from service.storage.local import LocalStore
from service.storage.opening import open_store
from service.storage.s3.store import S3Store
from tests.conftest import use
from tests.servers import S3Server, environment_for, free_port, refusing_server
from tests.watched import Killed, Mortal, Watched

FILES = {"train/0.png": b"eight", "train/1.png": b"bits", "metadata.csv": b"file_name,text\n", "empty.txt": b""}
PATH = "runs/local/lora"


@pytest.fixture
def store(store_uri: str) -> ObjectStore:
    return open_store(store_uri)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "made", FILES)


def folder_of(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def contents_of(folder: Path) -> dict[str, bytes]:
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    files.pop(MANIFEST_NAME)
    return files


def files_in(folder: Path) -> list[Path]:
    """Its files, but for the empty ones that stand for a lock."""
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]


def keys_of(store: ObjectStore, prefix: str = "") -> set[str]:
    return {entry.key for entry in store.list(prefix)}


# The stores


def test_what_was_put_is_got_back(store: ObjectStore, tmp_path: Path) -> None:
    source = tmp_path / "weights"
    source.write_bytes(os.urandom(1000))
    store.put("a/note.json", b"{}")
    store.put("a/weights", source)
    store.download("a/weights", tmp_path / "copy")
    assert store.get("a/note.json") == b"{}"
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()


def test_a_file_larger_than_one_part_survives_the_multipart_transfer(store: ObjectStore, tmp_path: Path) -> None:
    source = tmp_path / "weights"
    source.write_bytes(os.urandom((16 << 20) + 12345))
    store.put("weights", source)
    store.download("weights", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()
    assert list(store.list("")) == [StoredObject("weights", (16 << 20) + 12345)]


def test_put_replaces(store: ObjectStore) -> None:
    store.put("status.json", b"first, and longer")
    store.put("status.json", b"second")
    assert store.get("status.json") == b"second"


def test_put_if_absent_never_replaces(store: ObjectStore) -> None:
    assert store.put_if_absent("pointer", b"first")
    assert not store.put_if_absent("pointer", b"second")
    assert store.get("pointer") == b"first"


def test_a_missing_key_is_not_found(store: ObjectStore, tmp_path: Path) -> None:
    store.put("a/b", b"")
    with pytest.raises(NotFound, match="c"):
        store.get("c")
    with pytest.raises(NotFound, match="a/c"):
        store.download("a/c", tmp_path / "copy")
    with pytest.raises(NotFound):
        store.get("a")
    assert not (tmp_path / "copy").exists()


def test_list_takes_a_prefix_and_tells_sizes(store: ObjectStore) -> None:
    for key in ("a/1", "a/deeper/2", "ab/3", "b/4"):
        store.put(key, key.encode())
    assert set(store.list("a/")) == {StoredObject("a/1", 3), StoredObject("a/deeper/2", 10)}
    assert keys_of(store, "a") == {"a/1", "a/deeper/2", "ab/3"}
    assert keys_of(store, "a/d") == {"a/deeper/2"}
    assert keys_of(store) == {"a/1", "a/deeper/2", "ab/3", "b/4"}
    assert keys_of(store, "nothing/") == set()


def test_a_deleted_key_is_gone_and_deleting_it_again_does_nothing(store: ObjectStore) -> None:
    store.put("a/b", b"")
    store.delete("a/b")
    store.delete("a/b")
    assert keys_of(store) == set()


@pytest.mark.parametrize("key", ["../a", "/a", "a/../b", "a//b", "./a", "a/", "", "a\\b", "a\nb"])
def test_a_key_that_could_leave_the_store_is_refused(store: ObjectStore, key: str) -> None:
    for use_of in (store.get, store.delete, lambda key: store.put(key, b""), lambda key: store.put_if_absent(key, b"")):
        with pytest.raises(BadConfiguration, match="key"):
            use_of(key)


def test_names_of_files_may_hold_spaces_and_umlauts(store: ObjectStore) -> None:
    key = "Straße/日本 &?#%25+=.png"
    store.put(key, b"1")
    assert store.get(key) == b"1"
    assert keys_of(store) == {key}


def test_a_reader_of_a_key_that_is_replaced_sees_the_old_or_the_new_content(store: ObjectStore) -> None:
    old, new = b"old" * 50_000, b"new" * 60_000
    store.put("status.json", old)
    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(lambda: [store.put("status.json", content) for content in (new, old) * 10])
        seen = {store.get("status.json")}
        while not writer.done():
            seen.add(store.get("status.json"))
    assert seen <= {old, new}


# Publishing


def test_a_published_folder_is_fetched_as_it_was(store: ObjectStore, folder: Path, tmp_path: Path) -> None:
    artifact = publish(store, folder, kind="dataset", path=PATH, parents=["datasets/x"], settings={"size": 64})
    fetched = fetch(store, PATH, tmp_path / "work")
    assert contents_of(fetched) == FILES
    assert artifact == Artifact(PATH, read_manifest(store, PATH))
    assert (artifact.manifest.parents, artifact.manifest.settings) == (["datasets/x"], {"size": 64})
    assert (fetched / MANIFEST_NAME).read_bytes() == store.get(f"{PATH}/{MANIFEST_NAME}")


def test_two_publishes_are_one(store: ObjectStore, folder: Path) -> None:
    first = publish_version(store, folder, kind="dataset", prefix="datasets/x", settings={"seed": 1})
    written = {entry.key: store.get(entry.key) for entry in store.list("")}
    again = publish_version(Mortal(store, 1), folder, kind="dataset", prefix="datasets/x", settings={"seed": 2})
    assert again == first
    assert first.path == f"datasets/x/{first.manifest.version}"
    assert {entry.key: store.get(entry.key) for entry in store.list("")} == written


def test_different_content_at_the_same_path_is_refused(store: ObjectStore, folder: Path) -> None:
    publish(store, folder, kind="lora", path=PATH)
    (folder / "metadata.csv").write_bytes(b"changed")
    with pytest.raises(BadConfiguration, match=f"{PATH}.*RUN_ID"):
        publish(store, folder, kind="lora", path=PATH)
    assert verify(store, PATH)


def test_the_root_of_a_store_can_be_an_artifact(store_uri: str, folder: Path, tmp_path: Path) -> None:
    publish(open_store(store_uri), folder, kind="dataset", path="data/mine")
    root = open_store(f"{store_uri}/data/mine")
    assert contents_of(fetch(root, "", tmp_path / "work")) == FILES
    assert verify(root, "").kind == "dataset"
    assert list_artifacts(root, "") == [""]


def test_an_artifact_without_manifest_is_not_found(store: ObjectStore, tmp_path: Path) -> None:
    store.put(f"{PATH}/weights", b"all but the manifest")
    for read in (lambda: fetch(store, PATH, tmp_path), lambda: verify(store, PATH), lambda: read_manifest(store, PATH)):
        with pytest.raises(NotFound, match="does not exist or is not finished"):
            read()


def test_only_finished_artifacts_are_listed(store: ObjectStore, folder: Path) -> None:
    publish(store, folder, kind="lora", path="runs/b/lora")
    publish(store, folder, kind="lora", path="runs/a/lora")
    publish(store, folder, kind="lora", path="runs/ab/lora")
    store.put("runs/c/lora/weights", b"")
    assert list_artifacts(store, "runs") == ["runs/a/lora", "runs/ab/lora", "runs/b/lora"]
    assert list_artifacts(store, "runs/a") == ["runs/a/lora"]
    assert list_artifacts(store, "runs/a/lora") == ["runs/a/lora"]
    assert list_artifacts(store, "runs/c") == []
    assert list_artifacts(store, "") == ["runs/a/lora", "runs/ab/lora", "runs/b/lora"]


@pytest.mark.parametrize("writes", range(1, len(FILES) + 3))
def test_a_publisher_killed_at_any_write_leaves_nothing_visible_and_can_be_repeated(
    store: ObjectStore, folder: Path, tmp_path: Path, writes: int
) -> None:
    with pytest.raises(Killed):
        publish(Mortal(store, writes), folder, kind="lora", path=PATH)
    assert list_artifacts(store, "") == []
    with pytest.raises(NotFound):
        fetch(store, PATH, tmp_path / "work")
    publish(store, folder, kind="lora", path=PATH)
    assert contents_of(fetch(store, PATH, tmp_path / "work")) == FILES


def test_files_left_by_a_killed_publisher_of_other_content_are_not_read(
    store: ObjectStore, folder: Path, tmp_path: Path
) -> None:
    other = folder_of(tmp_path / "other", {**FILES, "train/2.png": b"left over", "train/1.png": b"other"})
    with pytest.raises(Killed):
        publish(Mortal(store, 6), other, kind="dataset", path=PATH)
    publish(store, folder, kind="dataset", path=PATH)
    assert contents_of(fetch(store, PATH, tmp_path / "work")) == FILES


def test_a_reader_during_a_publish_sees_nothing_or_everything(store: ObjectStore, folder: Path, tmp_path: Path) -> None:
    seen: list[dict[str, bytes] | None] = []

    def look() -> None:
        try:
            seen.append(contents_of(fetch(store, PATH, tmp_path / "work")))
        except NotFound:
            seen.append(None)

    publish(Watched(store, look), folder, kind="lora", path=PATH)
    look()
    # Before the claim, the files and the manifest; before the claim is deleted, and in the end.
    assert seen == [None] * (len(FILES) + 2) + [FILES] * 2


def test_concurrent_publishers_of_the_same_content_all_succeed(
    store: ObjectStore, folder: Path, tmp_path: Path
) -> None:
    with ThreadPoolExecutor(4) as pool:
        published = list(pool.map(lambda _: publish(store, folder, kind="lora", path=PATH), range(4)))
    assert all(artifact == published[0] for artifact in published)
    assert contents_of(fetch(store, PATH, tmp_path / "work")) == FILES


@pytest.mark.parametrize("server", ["local", "moto"])
def test_of_concurrent_writers_of_different_data_one_wins_where_conditions_are_honoured(
    server: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = open_store(str(tmp_path))
    if server == "moto":
        moto: S3Server = request.getfixturevalue("moto")
        use(moto, monkeypatch)
        store = open_store(f"s3://{moto.new_bucket()}")
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda number: store.put_if_absent("pointer", b"%d" % number), range(8)))
    assert won.count(True) == 1
    assert store.get("pointer") == b"%d" % won.index(True)


# Damage


def flip(content: bytes) -> bytes:
    return bytes([content[0] ^ 1]) + content[1:]


def assert_damage_is_found(store: ObjectStore, file: str, work_dir: Path) -> None:
    with pytest.raises(BadData, match=f"{PATH}.*{file}"):
        verify(store, PATH)
    with pytest.raises(BadData, match=f"{PATH}.*{file}"):
        fetch(store, PATH, work_dir)
    assert files_in(work_dir) == []


@pytest.mark.parametrize("file", ["train/1.png", "metadata.csv"])
def test_a_flipped_byte_is_found(store: ObjectStore, folder: Path, tmp_path: Path, file: str) -> None:
    publish(store, folder, kind="dataset", path=PATH)
    store.put(f"{PATH}/{file}", flip(FILES[file]))
    assert_damage_is_found(store, file, tmp_path / "work")


def test_a_truncated_file_is_found(store: ObjectStore, folder: Path, tmp_path: Path) -> None:
    publish(store, folder, kind="dataset", path=PATH)
    store.put(f"{PATH}/train/0.png", FILES["train/0.png"][:-1])
    assert_damage_is_found(store, "train/0.png", tmp_path / "work")


def test_a_missing_file_is_found(store: ObjectStore, folder: Path, tmp_path: Path) -> None:
    publish(store, folder, kind="dataset", path=PATH)
    store.delete(f"{PATH}/empty.txt")
    assert_damage_is_found(store, "empty.txt", tmp_path / "work")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"path": "metadata.csv"', b'"path": "../metadata.csv"'),
        (b'"path": "metadata.csv"', b'"path": "/etc/passwd"'),
        (b'"schema_version": 1', b'"schema_version": 0'),
        (b'"size": 5', b'"size": 4'),
        (b'"kind"', b'"sort"'),
        (b"}\n", b""),
    ],
)
def test_a_manifest_that_was_tampered_with_is_refused(
    store: ObjectStore, folder: Path, tmp_path: Path, old: bytes, new: bytes
) -> None:
    publish(store, folder, kind="dataset", path=PATH)
    key = f"{PATH}/{MANIFEST_NAME}"
    manifest = store.get(key)
    assert old in manifest
    store.put(key, manifest.replace(old, new) if old != b"}\n" else manifest[: -len(old)])
    with pytest.raises(BadData, match=f"{MANIFEST_NAME} of .*{PATH}"):
        fetch(store, PATH, tmp_path / "work")


# Copies of what is far away


@pytest.fixture
def far(moto: S3Server, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    use(moto, monkeypatch)
    return open_store(f"s3://{moto.new_bucket()}")


def test_a_second_fetch_downloads_nothing(far: ObjectStore, folder: Path, tmp_path: Path) -> None:
    publish(far, folder, kind="dataset", path=PATH)
    first = fetch(far, PATH, tmp_path / "work")
    for file in FILES:
        far.delete(f"{PATH}/{file}")
    assert fetch(far, PATH, tmp_path / "work") == first


@pytest.mark.parametrize("content", [b"eighT", b"", None])
def test_a_damaged_copy_is_fetched_again(far: ObjectStore, folder: Path, tmp_path: Path, content: bytes | None) -> None:
    publish(far, folder, kind="dataset", path=PATH)
    copy = fetch(far, PATH, tmp_path / "work") / "train/0.png"
    copy.unlink() if content is None else copy.write_bytes(content)
    assert contents_of(fetch(far, PATH, tmp_path / "work")) == FILES


def test_of_concurrent_fetches_one_downloads_and_all_share_the_copy(
    far: ObjectStore, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(far, folder, kind="dataset", path=PATH)
    downloaded: list[str] = []
    download = S3Store.download

    def counted(store: S3Store, key: str, target: Path) -> None:
        downloaded.append(key)
        time.sleep(0.05)  # long enough for the others to come
        download(store, key, target)

    monkeypatch.setattr(S3Store, "download", counted)
    with ThreadPoolExecutor(4) as pool:
        copies = set(pool.map(lambda _: fetch(far, PATH, tmp_path / "work"), range(4)))
    assert len(copies) == 1
    assert contents_of(copies.pop()) == FILES
    assert sorted(downloaded) == sorted(f"{PATH}/{name}" for name in FILES)


def test_a_fetch_that_waits_for_another_process_can_be_told_to_stop(
    far: ObjectStore, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(far, folder, kind="dataset", path=PATH)
    target = fetch(far, PATH, tmp_path / "work")
    monkeypatch.setattr(disk, "LOOK_EVERY", 0.02)

    def stop() -> None:
        raise Stopped("told to")

    with FileLock(f"{target}.lock"), pytest.raises(Stopped):
        fetch(far, PATH, tmp_path / "work", stop)


def test_a_local_artifact_is_used_in_place(folder: Path, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "artifacts"))
    publish(store, folder, kind="dataset", path=PATH)
    assert fetch(store, PATH, tmp_path / "work") == tmp_path / "artifacts" / PATH
    assert not (tmp_path / "work").exists()


# Failing servers


def everything_a_store_does(store: ObjectStore, tmp_path: Path) -> list[object]:
    source = tmp_path / "source"
    source.write_bytes(b"1")
    return [
        lambda: store.get("a"),
        lambda: store.put("a", b"1"),
        lambda: store.put("a", source),
        lambda: store.put_if_absent("a", b"1"),
        lambda: store.download("a", tmp_path / "copy"),
        lambda: list(store.list("")),
        lambda: store.delete("a"),
    ]


@pytest.mark.parametrize("server", ["moto", "rclone"])
def test_a_missing_bucket_is_never_an_empty_one(
    server: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use(request.getfixturevalue(server), monkeypatch)
    store = open_store("s3://no-such-bucket/prefix")
    for action in everything_a_store_does(store, tmp_path):
        with pytest.raises(MissingInput, match=r"no-such-bucket.*ARTIFACTS_URI") as raised:
            action()
        assert not isinstance(raised.value, NotFound)


def test_a_refused_credential_is_never_taken_for_an_empty_bucket(
    rclone: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use(rclone, monkeypatch)
    bucket = rclone.new_bucket()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong" * 8)
    store = open_store(f"s3://{bucket}")
    for action in everything_a_store_does(store, tmp_path):
        with pytest.raises(AccessDenied, match=f"{bucket}.*AWS_SECRET_ACCESS_KEY"):
            action()


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (403, "AccessDenied", AccessDenied),
        (403, "SignatureDoesNotMatch", AccessDenied),
        (400, "ExpiredToken", AccessDenied),
        (503, "SlowDown", StorageUnreachable),
        (400, "InvalidArgument", StorageUnreachable),
        (400, "AuthorizationHeaderMalformed", BadConfiguration),
    ],
)
def test_an_error_of_the_server_is_told_for_what_it_is(
    status: int, code: str, expected: type[Exception], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with refusing_server(status, code) as server:
        use(server, monkeypatch)
        store = open_store("s3://some-bucket")
        for action in (lambda: store.get("a"), lambda: store.put("a", b"1"), lambda: list(store.list(""))):
            with pytest.raises(expected, match=r"some-bucket.*as told"):
                action()
        if status == 403:
            for action in everything_a_store_does(store, tmp_path):
                with pytest.raises(expected):
                    action()


def test_without_credentials_the_error_says_which_variables_to_set(
    moto: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(moto, monkeypatch)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(AccessDenied, match="AWS_ACCESS_KEY_ID"):
        open_store("s3://some-bucket").get("a")


def test_a_port_where_nobody_listens_is_told_soon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in environment_for(free_port()).items():
        monkeypatch.setenv(name, value)
    began = time.monotonic()
    with pytest.raises(StorageUnreachable, match="AWS_ENDPOINT_URL"):
        open_store("s3://some-bucket").get("a")
    assert time.monotonic() - began < 30
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    for action in everything_a_store_does(open_store("s3://some-bucket"), tmp_path):
        with pytest.raises(StorageUnreachable):
            action()


@pytest.mark.parametrize("uri", ["", " ", "s3://", "s3:///prefix", "s3:/bucket", "gs://bucket", "https://host/bucket"])
def test_a_uri_that_is_no_place_for_artifacts_is_refused(uri: str) -> None:
    with pytest.raises(BadConfiguration, match="s3://bucket/prefix"):
        open_store(uri)


def test_settings_that_boto3_does_not_understand_are_bad_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "not a url")
    with pytest.raises(BadConfiguration, match="AWS_ENDPOINT_URL"):
        open_store("s3://some-bucket")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(BadConfiguration, match="AWS_PROFILE"):
        open_store("s3://some-bucket")


# A failing disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_told_with_its_path_and_leaves_no_debris(small_disk: Path, tmp_path: Path) -> None:
    store = LocalStore(small_disk)
    folder = folder_of(tmp_path / "made", {"weights": bytes(100_000)})
    with pytest.raises(InputOutput, match=rf"No space left on device.*{small_disk}.*ARTIFACTS_URI"):
        publish(store, folder, kind="lora", path=PATH)
    # The claim stays: another writer of the same files may still rely on it.
    assert [path for path in small_disk.rglob("*") if path.is_file() and not path.name.startswith(CLAIM)] == []
    store.put("note", b"there is room for this")


def test_a_full_work_dir_is_told_with_its_path(far: ObjectStore, small_disk: Path, tmp_path: Path) -> None:
    publish(far, folder_of(tmp_path / "made", {"weights": bytes(100_000)}), kind="lora", path=PATH)
    with pytest.raises(InputOutput, match=rf"No space left on device.*{small_disk}.*WORK_DIR"):
        fetch(far, PATH, small_disk)
    assert files_in(small_disk) == []


def test_a_folder_that_cannot_be_made_is_told_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputOutput, match=rf"{tmp_path}.*ARTIFACTS_URI"):
        LocalStore(tmp_path / "file/artifacts").put("a", b"")


WRITER = """
import os, sys
from pathlib import Path
from service.storage.opening import open_store
store = open_store(sys.argv[1])
print("ready", flush=True)
while True:
    store.put("status.json", Path(sys.argv[2]))
"""


def test_a_writer_that_is_killed_leaves_a_whole_object_and_nothing_else_to_list(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(8 << 20))
    uri = str(tmp_path / "artifacts")
    store = open_store(uri)
    store.put("status.json", source)
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", WRITER, uri, str(source)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(0.05)
            writer.kill()
        assert store.get("status.json") == source.read_bytes()
        assert list(store.list("")) == [StoredObject("status.json", 8 << 20)]


# Runs


def test_a_run_remembers_its_data_set(store: ObjectStore) -> None:
    Run(store, "monday").remember_dataset("datasets/pixels/0123456789abcdef")
    assert Run(store, "monday").dataset() == "datasets/pixels/0123456789abcdef"
    assert Run(store, "monday").lora_path == "runs/monday/lora"


def test_a_run_without_data_set_says_what_to_do(store: ObjectStore) -> None:
    with pytest.raises(MissingInput, match=r"data-prep.*TRAIN_DATASET"):
        Run(store, "monday").dataset()


def test_a_garbled_note_of_the_data_set_is_bad_data(store: ObjectStore) -> None:
    for note in (b"", b"[]", b"{}", b'{"dataset": 1}'):
        store.put("runs/monday/dataset.json", note)
        with pytest.raises(BadData, match=r"runs/monday/dataset\.json"):
            Run(store, "monday").dataset()


def test_a_folder_needs_no_boto3(tmp_path: Path) -> None:
    program = (
        "import sys; from service.artifacts import publishing, runs; from service.storage import opening; "
        f"opening.open_store({str(tmp_path)!r}); print({{'boto3', 'botocore', 'torch', 'numpy'}} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
