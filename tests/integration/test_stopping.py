"""SIGTERM ends every job cleanly with exit code 75, and the next start goes on from there to the very same result."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from service.artifacts.publishing import list_artifacts, read_manifest
from service.exits import ExitCode
from service.settings.demo import DEMO_VARIABLES
from service.storage.opening import open_store
from tests.integration.bing import Web
from tests.integration.chain import SECONDS, SMALL, End, events_of, finish, finish_killed, start, warm_up
from tests.integration.test_data_prep_resume import only_dataset, variables, wide_web

STOPS = 4
# One thread: on a busy machine two of them mostly wait for each other, and a batch takes a minute.
TRAINED = DEMO_VARIABLES | SMALL | {"OMP_NUM_THREADS": "1"}
# Many batches, so that there are many moments between two of them.
DRAWING = {
    "infer": {"INFER_VARIATIONS": "5", "INFER_STEPS": "6", "INFER_BATCH_SIZE": "1"},
    "evaluate": {"EVALUATE_VARIATIONS": "4", "EVALUATE_STEPS": "4", "EVALUATE_BATCH_SIZE": "1"},
}
KIND = {"infer": "images", "evaluate": "evaluation"}

pytestmark = pytest.mark.filterwarnings(r"ignore:unclosed file .*imagefolder/.*:ResourceWarning")


def finish_stopped(job: str, folder: Path, variables: dict[str, str], moment: Callable[[int, str], bool]) -> End:
    """Tells the job to stop once `moment(number, line)` is true of a logged event."""
    running = start(job, folder, variables)
    running.wait_for(moment)
    running.process.terminate()
    return running.wait()


def ended_as_told(end: End) -> bool:
    """Whether it stopped rather than being done already; in one line, with the code that says so."""
    assert end.code in (ExitCode.STOPPED, ExitCode.DONE), end.events
    if end.code == ExitCode.STOPPED:
        assert [event["exit_code"] for event in end.events if event["event"] == "stopped"] == [ExitCode.STOPPED]
        assert [event for event in end.events if event["event"] == "failed"] == []
    return end.code == ExitCode.STOPPED


def copied(trained: Path, folder: Path) -> Path:
    shutil.copytree(trained / "artifacts", folder / "artifacts")
    return folder


def versions(job: str, folder: Path) -> list[str]:
    """What the job published, as hashes of all its bytes."""
    store = open_store(str(folder / "artifacts"))
    return [read_manifest(store, path).version for path in list_artifacts(store, f"runs/demo/{KIND[job]}")]


def drawn(end: End) -> int:
    """Batches that are finished by this process, as far as it tells."""
    return sum(event["event"] == "progress" and event["what"].startswith("drawing") for event in end.events)


def test_data_prep_told_to_stop_finishes_what_is_under_way_and_asks_for_nothing_twice(web: Web, tmp_path: Path) -> None:
    wide_web(web, tmp_path / "list.csv", 120)
    settings = variables(tmp_path / "list.csv", DATA_PREP_LIMIT="80", DATA_PREP_CANDIDATES="120")
    web.latency = 0.1
    warm_up()
    begin = time.monotonic()
    assert finish("data-prep", tmp_path / "whole", settings).code == ExitCode.DONE
    duration = time.monotonic() - begin
    asked = sorted(web.requests)

    web.requests.clear()
    wide_web(web, tmp_path / "list.csv", 120)  # hosts that fail at first fail again
    dice, stops, ended = random.Random(5), 0, None
    while ended != ExitCode.DONE:
        running = start("data-prep", tmp_path / "stopped", settings)
        running.wait_for(lambda *_: True)
        running.process.join(dice.uniform(0.0, 0.5) * duration if stops < STOPS else 600)
        running.process.terminate()
        end = running.wait()
        stops += ended_as_told(end)
        ended = end.code
    assert stops >= 2
    assert only_dataset(tmp_path / "stopped") == only_dataset(tmp_path / "whole")
    assert sorted(web.requests) == asked


def test_captions_said_before_the_stop_are_not_said_again(tmp_path: Path) -> None:
    settings = TRAINED | {"DATA_PREP_CAPTION_BATCH": "2"}
    end = finish_stopped("data-prep", tmp_path, settings, lambda _, line: '"captioning"' in line)
    assert end.code == ExitCode.STOPPED
    resumed = finish("data-prep", tmp_path, settings)
    assert 2 <= resumed.last("captions known")["known"] < 24
    assert finish("data-prep", tmp_path / "whole", settings).code == ExitCode.DONE
    assert only_dataset(tmp_path) == only_dataset(tmp_path / "whole")


@pytest.mark.parametrize(
    ("job", "end_it"), [("infer", finish_stopped), ("evaluate", finish_stopped), ("infer", finish_killed)]
)
def test_pictures_drawn_before_the_end_are_not_drawn_again_and_the_result_is_the_same_byte_for_byte(
    job: str, end_it: Callable[..., End | bool], trained: Path, tmp_path: Path
) -> None:
    settings = TRAINED | DRAWING[job]
    whole = finish(job, copied(trained, tmp_path / "whole"), settings)
    assert whole.code == ExitCode.DONE
    folder = copied(trained, tmp_path / "cut")
    dice = random.Random(11)
    kept = 0
    for number in range(2):
        at = dice.randint(1, 2) + 2 * number
        ended = end_it(
            job, folder, settings, lambda _, line, at=at: '"drawing' in line and f'"done": {at},' in line
        )  # the first time in the base model's pictures, the second time a little later
        assert ended is True or (isinstance(ended, End) and ended.code == ExitCode.STOPPED)
        pictures = len(list((folder / "artifacts" / "runs" / "demo" / "drawing").rglob("*.png")))
        assert pictures >= max(kept, at)
        kept = pictures
    resumed = finish(job, folder, settings)
    assert resumed.code == ExitCode.DONE
    assert sum(event["kept"] for event in resumed.events if event["event"] == "pictures kept") == kept
    assert versions(job, folder) == versions(job, tmp_path / "whole") != []
    assert not list((folder / "artifacts" / "runs" / "demo" / "drawing").rglob("*.png"))


def test_a_kept_picture_that_is_damaged_is_drawn_again(trained: Path, tmp_path: Path) -> None:
    settings = TRAINED | DRAWING["infer"]
    finish("infer", copied(trained, tmp_path / "whole"), settings)
    folder = copied(trained, tmp_path / "cut")
    finish_stopped("infer", folder, settings, lambda _, line: '"drawing' in line and '"done": 2,' in line)
    first = sorted((folder / "artifacts" / "runs" / "demo" / "drawing").rglob("00000.png"))[0]
    content = first.read_bytes()
    first.write_bytes(content[: len(content) // 2])
    resumed = finish("infer", folder, settings)
    assert resumed.last("kept picture is drawn again")["key"].endswith("base/00000.png")
    assert versions("infer", folder) == versions("infer", tmp_path / "whole")


def test_the_demo_stops_between_two_of_its_jobs_too(trained: Path, tmp_path: Path) -> None:
    folder = copied(trained, tmp_path)
    # The LoRA is there already: what follows is the drawing of pictures.
    end = finish_stopped("demo", folder, TRAINED, lambda _, line: "already complete" in line)
    assert ended_as_told(end)
    assert finish("demo", folder, TRAINED).last("demo finished")["decision"] in ("promote", "hold", "reject")


def test_a_stopped_job_tells_so_in_its_outcome(trained: Path, tmp_path: Path) -> None:
    settings = TRAINED | DRAWING["infer"] | {"OUTCOME_FILE": str(tmp_path / "outcome")}
    finish_stopped("infer", copied(trained, tmp_path), settings, lambda _, line: '"drawing' in line)
    assert '"exit_name": "STOPPED"' in (tmp_path / "outcome").read_text()
    assert "start the job again" in (tmp_path / "outcome").read_text()


def test_a_second_ctrl_c_ends_the_job_at_once_and_in_one_line(web: Web, tmp_path: Path) -> None:
    wide_web(web, tmp_path / "list.csv", 40)
    web.latency = 3.0  # what is under way would take that long
    running = start("data-prep", tmp_path, variables(tmp_path / "list.csv"))
    while len(web.requests) < 8:
        assert running.process.is_alive(), running.said()
        time.sleep(0.01)
    assert running.process.pid is not None
    os.kill(running.process.pid, signal.SIGINT)
    time.sleep(0.3)
    os.kill(running.process.pid, signal.SIGINT)
    end = running.wait()
    assert end.code == ExitCode.STOPPED
    assert "interrupted at once" in end.last("stopped")["reason"]
    assert "Traceback" not in running.said()


def listens(pid: int) -> bool:
    """Whether a process has a handler of its own for SIGTERM."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(caught >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize(
    ("job", "seconds"),
    [("data-prep", 0.0), ("train", 0.3), ("train", 1.0), ("train", 3.0), ("infer", 2.0), ("demo", 1.5)],
)
def test_at_any_moment_of_its_start_a_job_stops_within_seconds(job: str, seconds: float, tmp_path: Path) -> None:
    places = {"ARTIFACTS_URI": str(tmp_path / "artifacts"), "WORK_DIR": str(tmp_path), "LOG_FORMAT": "json"}
    environment = os.environ | TRAINED | places | {"OUTCOME_FILE": str(tmp_path / "outcome")}
    command = [sys.executable, "-m", "service", job]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        while not listens(process.pid):
            assert process.poll() is None
            time.sleep(0.001)
        time.sleep(seconds)
        begin = time.monotonic()
        process.terminate()
        said = process.communicate(timeout=SECONDS)[1]
    if process.returncode == ExitCode.MISSING_INPUT:
        assert seconds > 0, said  # a fast machine has found out already that there is no data set
        return
    assert time.monotonic() - begin < 10
    assert ended_as_told(End(process.returncode, events_of(said)))
    assert json.loads((tmp_path / "outcome").read_text())["exit_name"] == "STOPPED"
