"""Models come from the hub into the store once, whole and checked; from then on no job asks the hub."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file
from tenacity import wait_none

from service import miniature
from service.__main__ import run
from service.artifacts.fetching import fetch, verify
from service.artifacts.publishing import list_artifacts, publish
from service.diffusion import hub as asking
from service.diffusion.models import locate_model
from service.exits import ExitCode
from service.jobs.reproduce import mirrors
from service.lineage.reproduction import Made, ancestry
from service.settings.demo import DEMO_VARIABLES
from service.settings.models import FamilySettings
from service.storage.opening import open_store
from tests.hubs import REVISION, Fault, Hub, cutting, files_of, hub_with, redirecting, refusing, resetting
from tests.integration.chain import SMALL, events_of
from tests.servers import answering, free_port

ROOT = Path(__file__).parents[2]
BASE, CLIP, CAPTIONER = "someone/base", "someone/clip", "someone/captioner"
# What a hub has besides, in the same repository, and nobody needs.
DECOYS = {
    "README.md": b"a card",
    "v1-5-pruned.safetensors": b"the same in one file",
    "unet/diffusion_pytorch_model.fp16.safetensors": b"the same in half",
    "unet/diffusion_pytorch_model.bin": b"the same as a pickle",
    "safety_checker/model.safetensors": b"never loaded",
}
MODELS = {
    BASE: files_of(miniature.STABLE_DIFFUSION) | DECOYS,
    CLIP: files_of(miniature.CLIP),
    CAPTIONER: files_of(miniature.CAPTIONER),
}
NAMED = {
    "MODEL_BASE": BASE,
    "MODEL_BASE_REVISION": REVISION,
    "MODEL_VAE": "base",
    "MODEL_CLIP": CLIP,
    "MODEL_CLIP_REVISION": REVISION,
    "MODEL_CAPTIONER": CAPTIONER,
    "MODEL_CAPTIONER_REVISION": REVISION,
}
UNET = "unet/diffusion_pytorch_model.safetensors"
UNET_SIZE = len(MODELS[BASE][UNET])


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """One with the miniature's models, which this process asks; its jobs are to load them."""
    for name, value in NAMED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ARTIFACTS_URI", str(tmp_path / "artifacts"))
    monkeypatch.setenv("WORK_DIR", str(tmp_path / "work"))
    monkeypatch.setenv("OUTCOME_FILE", str(tmp_path / "outcome"))
    monkeypatch.setenv("LOG_FORMAT", "json")
    monkeypatch.setattr(asking, "PAUSE", wait_none())
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with hub_with(MODELS) as running:
        point_to(running.address, monkeypatch)
        yield running


def point_to(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT does when the hub's library is loaded."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def store_of(folder: Path) -> Any:
    return open_store(str(folder / "artifacts"))


def mirrored(folder: Path, model: str) -> dict[str, bytes]:
    """The files of a mirror, each of them verified."""
    copy = fetch(store_of(folder), f"models/{model}/{REVISION}", folder / "work")
    return {name: content for name, content in files_of(copy).items() if name != "MANIFEST.json"}


def error_of(folder: Path) -> str:
    return str(json.loads((folder / "outcome").read_text())["error"])


def in_a_process(
    program: str, folder: Path, address: str, *, command: tuple[str, ...] = (), **variables: str
) -> "subprocess.Popen[bytes]":
    """A job in a process of its own, whose hub is at the address, as HF_ENDPOINT names it; `command` starts the process."""
    places = {
        "ARTIFACTS_URI": str(folder / "artifacts"),
        "WORK_DIR": str(folder / "work"),
        "HF_HOME": str(folder / "hf"),
    }
    online = {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "LOG_FORMAT": "json", "NO_PROXY": "127.0.0.1"}
    environment = os.environ | places | online | NAMED | variables
    with (folder / "said").open("ab") as said:
        whole = [*command, sys.executable, "-c", program]
        return subprocess.Popen(whole, env=environment, stdout=said, stderr=said, cwd=folder)


def test_what_the_jobs_load_is_mirrored_byte_for_byte_and_nothing_else(hub: Hub, tmp_path: Path) -> None:
    assert run(["prefetch"]) == ExitCode.DONE
    for model in MODELS:
        wanted = {name: content for name, content in MODELS[model].items() if name not in DECOYS}
        assert mirrored(tmp_path, model) == wanted
    assert not any(hub.asked(f"/{name}") for name in DECOYS)
    outcome = json.loads((tmp_path / "outcome").read_text())
    assert outcome["models"] == sorted(f"models/{model}/{REVISION}" for model in MODELS)
    assert not list((tmp_path / "work" / "prefetch").rglob("*.safetensors"))

    hub.requests.clear()
    assert run(["prefetch"]) == ExitCode.DONE
    assert hub.requests == []  # what is mirrored is not asked for again


def test_only_the_models_of_the_jobs_that_are_to_run_are_mirrored(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFETCH_JOBS", "train")
    assert run(["prefetch"]) == ExitCode.DONE
    assert list_artifacts(store_of(tmp_path), "models") == [f"models/{BASE}/{REVISION}"]
    assert not hub.asked(CLIP)


def test_models_that_are_none_of_the_hubs_need_nothing(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMED:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MODEL_BASE", "miniature")
    monkeypatch.setenv("MODEL_CLIP", str(miniature.CLIP))
    assert run(["prefetch"]) == ExitCode.DONE
    assert hub.requests == []


FAULTS: dict[str, list[tuple[str, Fault]]] = {
    "busy": [(f"revision/{REVISION}", refusing(503)), (UNET, refusing(503)), ("config.json", refusing(500))],
    "patient": [(f"revision/{REVISION}", refusing(429)), (UNET, refusing(429))],
    "cut before": [(f"revision/{REVISION}", resetting), (UNET, resetting), ("model.safetensors", resetting)],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_hub_that_is_disturbed_is_asked_again_and_the_mirror_is_whole(
    fault: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFETCH_JOBS", "train")
    hub.faults += FAULTS[fault]
    assert run(["prefetch"]) == ExitCode.DONE
    assert hub.faults == []
    assert mirrored(tmp_path, BASE)[UNET] == MODELS[BASE][UNET]


def test_a_file_whose_connection_is_cut_is_asked_for_from_there_on(hub: Hub, tmp_path: Path) -> None:
    hub.faults += [(UNET, cutting(MODELS[BASE][UNET], UNET_SIZE - 1000)), (UNET, resetting)]
    assert run(["prefetch", "--prefetch-jobs", "train"]) == ExitCode.DONE
    assert mirrored(tmp_path, BASE)[UNET] == MODELS[BASE][UNET]
    assert hub.asked(UNET)[-1] > 0


def test_the_token_for_the_hub_is_not_shown_to_the_server_that_it_names_for_a_file(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary7secret")
    shown: list[str | None] = []
    elsewhere: list[str | None] = []

    def answer(handler: Any) -> None:
        elsewhere.append(handler.headers["Authorization"])
        hub.send(handler, MODELS[BASE][UNET], "x")

    with answering(answer) as port:
        hub.faults.append((UNET, redirecting(f"http://127.0.0.1:{port}/blob", shown)))
        assert run(["prefetch", "--prefetch-jobs", "train"]) == ExitCode.DONE
    assert (shown, elsewhere) == (["Bearer hf_canary7secret"], [None])
    assert mirrored(tmp_path, BASE)[UNET] == MODELS[BASE][UNET]


@pytest.mark.parametrize("file", [UNET, "tokenizer/tokenizer.json"])
def test_a_file_that_is_damaged_on_its_way_is_noticed_by_its_hash_and_downloaded_again(
    file: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PREFETCH_JOBS", "train")
    content = MODELS[BASE][file]
    hub.changed[file] = [content[:-1] + bytes([content[-1] ^ 1])]  # of the right size
    assert run(["prefetch"]) == ExitCode.DONE
    assert len(hub.asked(file)) == 2
    assert mirrored(tmp_path, BASE)[file] == content
    assert "not what the hub says it is" in capsys.readouterr().err


def test_a_file_that_is_never_what_the_hub_says_is_bad_data_and_nothing_is_mirrored(hub: Hub, tmp_path: Path) -> None:
    file = "model.safetensors"
    hub.changed[file] = [bytes(len(MODELS[CLIP][file]))] * 3 + [bytes(len(MODELS[CAPTIONER][file]))] * 3
    assert run(["prefetch", "--prefetch-jobs", "evaluate"]) == ExitCode.BAD_DATA
    assert file in error_of(tmp_path)
    assert f"models/{CLIP}/{REVISION}" not in list_artifacts(store_of(tmp_path), "models")
    hub.changed.clear()
    assert run(["prefetch"]) == ExitCode.DONE
    assert mirrored(tmp_path, CLIP)[file] == MODELS[CLIP][file]


REFUSALS: list[tuple[Fault, ExitCode, str]] = [
    (refusing(404, "RepoNotFound"), ExitCode.MISSING_INPUT, "MODEL_BASE=someone/base"),
    (refusing(404, "RevisionNotFound"), ExitCode.MISSING_INPUT, "MODEL_BASE_REVISION"),
    (refusing(403, "GatedRepo"), ExitCode.ACCESS_DENIED, "HF_TOKEN"),
    (refusing(401), ExitCode.ACCESS_DENIED, "HF_TOKEN"),
]


@pytest.mark.parametrize(("fault", "code", "told"), REFUSALS)
def test_what_the_hub_refuses_is_what_the_job_ends_with(
    fault: Fault, code: ExitCode, told: str, hub: Hub, tmp_path: Path
) -> None:
    hub.faults.append((f"{BASE}/revision/{REVISION}", fault))
    assert run(["prefetch", "--prefetch-jobs", "train"]) == code
    assert told in error_of(tmp_path)


@pytest.mark.usefixtures("hub")
def test_without_a_hub_without_a_commit_and_in_offline_mode_it_is_said_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_to(f"http://127.0.0.1:{free_port()}", monkeypatch)
    assert run(["prefetch"]) == ExitCode.STORAGE_UNREACHABLE
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert run(["prefetch"]) == ExitCode.BAD_CONFIGURATION
    assert "HF_HUB_OFFLINE" in error_of(tmp_path)
    monkeypatch.setenv("MODEL_CLIP_REVISION", "main")
    assert run(["prefetch"]) == ExitCode.BAD_CONFIGURATION
    assert "MODEL_CLIP_REVISION" in error_of(tmp_path)


def test_of_a_model_that_the_hub_has_as_a_pickle_alone_the_same_tensors_are_mirrored(tmp_path: Path, hub: Hub) -> None:
    tensors = load_file(miniature.CLIP / "model.safetensors")
    torch.save(tensors, tmp_path / "pickle")
    files = {name: content for name, content in MODELS[CLIP].items() if name != "model.safetensors"}
    hub.models = {**MODELS, CLIP: files | {"pytorch_model.bin": (tmp_path / "pickle").read_bytes()}}
    assert run(["prefetch"]) == ExitCode.DONE
    manifest = verify(store_of(tmp_path), f"models/{CLIP}/{REVISION}")
    assert {file.path for file in manifest.files} == set(MODELS[CLIP])
    assert manifest.settings["read_from"] == {"model.safetensors": "pytorch_model.bin"}
    files_here = locate_model(FamilySettings(), "model_clip")
    read = load_file(Path(files_here.name) / "model.safetensors")
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())


# The library keeps what it has of a file chunk by chunk, and these files are smaller than one of its chunks.
PREFETCH = """
import sys
from huggingface_hub import constants
constants.DOWNLOAD_CHUNK_SIZE = 100_000
from service.__main__ import run
sys.exit(run(["prefetch"]))
"""


def test_one_that_is_killed_in_the_middle_of_a_file_goes_on_where_it_was(tmp_path: Path) -> None:
    with hub_with(MODELS) as hub:
        content = MODELS[BASE][UNET]

        def half(handler: Any) -> None:
            handler.send_response(200)
            handler.send_header("Content-Length", str(UNET_SIZE))
            handler.end_headers()
            handler.wfile.write(content[: UNET_SIZE // 2])
            handler.wfile.flush()
            time.sleep(1)
            process.kill()
            process.wait()

        hub.faults.append((UNET, half))
        process = in_a_process(PREFETCH, tmp_path, hub.address)
        assert process.wait(120) == -9
        assert list_artifacts(store_of(tmp_path), "models") == []
        before = len(hub.requests)

        assert in_a_process(PREFETCH, tmp_path, hub.address).wait(120) == ExitCode.DONE, (tmp_path / "said").read_text()
        again = hub.requests[before:]
        assert next(first for method, path, first in again if path.endswith(UNET) and method == "GET") > UNET_SIZE // 4
        assert not any(path.endswith("text_encoder/model.safetensors") for _, path, _ in again)
        for model in MODELS:
            assert mirrored(tmp_path, model).items() <= MODELS[model].items()


def test_two_at_once_mirror_the_same(tmp_path: Path) -> None:
    with hub_with(MODELS) as hub:
        both = [in_a_process(PREFETCH, tmp_path, hub.address, WORK_DIR=str(tmp_path / name)) for name in ("one", "two")]
        assert [process.wait(120) for process in both] == [0, 0], (tmp_path / "said").read_text()
        for model in MODELS:
            assert mirrored(tmp_path, model).items() <= MODELS[model].items()


def test_a_request_to_stop_in_the_middle_of_a_file_is_heeded_at_once(tmp_path: Path) -> None:
    with hub_with(MODELS) as hub:
        stopped: list[float] = []

        def stall(handler: Any) -> None:
            handler.send_response(200)
            handler.send_header("Content-Length", str(UNET_SIZE))
            handler.end_headers()
            time.sleep(0.5)
            process.terminate()
            stopped.append(time.monotonic())
            process.wait(60)

        hub.faults.append((UNET, stall))
        process = in_a_process(PREFETCH, tmp_path, hub.address)
        assert process.wait(120) == ExitCode.STOPPED
        assert time.monotonic() - stopped[0] < 5
        assert in_a_process(PREFETCH, tmp_path, hub.address).wait(120) == ExitCode.DONE


# In a network of its own, in which nothing answers but the bucket: no hub, and no name server either.
CHAIN = """
import fcntl, os, socket, struct, sys
from pathlib import Path
from tests.servers import rclone_server

with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
with rclone_server(Path("buckets")) as server:
    os.environ.update(server.environment)
    from service.__main__ import run

    sys.exit(run(["demo"]))
"""


def test_the_whole_chain_runs_on_mirrored_models_where_only_the_bucket_answers(tmp_path: Path) -> None:
    with hub_with(MODELS) as hub:
        mirroring = in_a_process(PREFETCH, tmp_path, hub.address, ARTIFACTS_URI="buckets/bucket/x")
        assert mirroring.wait(120) == ExitCode.DONE, (tmp_path / "said").read_text()
    variables = {"ARTIFACTS_URI": "s3://bucket/x", "PYTHONPATH": str(ROOT), "RETRY_SECONDS": "0"}
    alone = in_a_process(
        CHAIN,
        tmp_path,
        "https://hub.example",
        command=("unshare", "--net"),
        **DEMO_VARIABLES | SMALL | NAMED | variables,
    )
    assert alone.wait(500) == ExitCode.DONE, (tmp_path / "said").read_text()[-3000:]
    events = events_of((tmp_path / "said").read_text())
    assert events[-1]["event"] == "demo finished"
    assert "asking the model hub" not in {event["event"] for event in events}
    assert not (tmp_path / "hf" / "hub").exists()


def test_doctor_finds_the_mirror_and_tells_of_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], hub: Hub
) -> None:
    assert run(["prefetch"]) == ExitCode.DONE
    hub.requests.clear()
    monkeypatch.setenv("DOCTOR_MIN_DISK_GIB", "0.01")
    store = store_of(tmp_path)
    path = f"models/{CLIP}/{REVISION}"
    found = []
    for content in (None, b"cut off"):
        if content:
            store.put(f"{path}/model.safetensors", content)
        capsys.readouterr()
        run(["doctor"])
        checks = {event["check"]: event for event in events_of(capsys.readouterr().err) if event["event"] == "check"}
        found.append(checks["model clip"])
        assert checks["model base"]["status"] == "ok"
    assert path in found[0]["fact"]
    assert [check["status"] for check in found] == ["ok", "failure"]
    assert hub.requests == []


@pytest.mark.usefixtures("hub")
def test_a_reproduction_in_a_store_of_its_own_takes_the_models_that_it_was_made_with_along(
    tmp_path: Path,
) -> None:
    assert run(["prefetch"]) == ExitCode.DONE
    store, recipe = store_of(tmp_path), FamilySettings().public() | {"model_clip_revision": "f" * 40}
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "weights").write_bytes(b"some")
    publish(store, tmp_path / "lora", kind="lora", path="runs/r/lora", settings=recipe)
    then = Made("runs/r/lora", "promote", ancestry(store, "runs/r/lora"))
    assert mirrors(store, then) == [f"models/{model}/{REVISION}" for model in (BASE, CAPTIONER)]
