"""JSON lines in a pipe, progress bars on a terminal."""

import json
import subprocess
import sys
import time

import pytest
import structlog

from service import logs
from service.logs import configure_logs, progress_bar
from service.settings.prune import PruneSettings


def test_in_a_pipe_every_event_is_one_json_line_with_its_context(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("auto", job="train", run_id="r1")
    structlog.get_logger("x").info("something happened", step=3)
    event = json.loads(capsys.readouterr().err)
    assert (event["event"], event["job"], event["run_id"], event["step"]) == ("something happened", "train", "r1", 3)
    assert {"time", "level"} <= event.keys()


@pytest.mark.parametrize(("total", "reports"), [(995, 10), (19, 10), (11, 10), (10, 10), (3, 3), (1, 1)])
def test_in_a_pipe_progress_of_a_slow_loop_is_an_event_for_each_tenth_however_many_items_it_has(
    total: int, reports: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "QUIET_SECONDS", 0.0)
    configure_logs("json")
    assert list(progress_bar(range(total), "steps", total, lambda: {"loss": 0.5})) == list(range(total))
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert len(events) == reports
    assert (events[-1]["done"], events[-1]["total"], events[-1]["loss"]) == (total, total, 0.5)


def test_in_a_pipe_a_loop_is_silent_until_it_has_taken_a_while(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    configure_logs("json")
    assert list(progress_bar(range(1000), "verifying", 1000)) == list(range(1000))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(logs, "QUIET_SECONDS", 0.2)
    for item in progress_bar(range(20), "steps", 20):
        if item == 10:
            time.sleep(0.2)
    assert [json.loads(line)["done"] for line in capsys.readouterr().err.splitlines()] == [12, 14, 16, 18, 20]


@pytest.mark.parametrize(
    ("level", "told"), [("debug", ["point", "done"]), ("info", ["done"]), ("warning", []), ("DEBUG", ["point", "done"])]
)
def test_the_level_decides_what_is_told(
    level: str, told: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOG_LEVEL", level)
    settings = PruneSettings()
    configure_logs("json", level=settings.log_level)
    log = structlog.get_logger("x")
    log.debug("point")
    log.info("done")
    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == told


def test_no_library_draws_a_bar_of_its_own_where_a_job_runs() -> None:
    program = """
from service.__main__ import run
run(["config", "--check"])
from tqdm.auto import tqdm
list(tqdm(range(1000), desc="a bar"))
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert (ended.stdout, ended.stderr) == ("", "")


def test_on_a_terminal_progress_is_a_bar_and_no_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("console")
    assert list(progress_bar(range(5), "steps", 5)) == list(range(5))
    shown = capsys.readouterr().err
    assert "steps" in shown
    assert "100%" in shown
    assert "{" not in shown


def test_an_exception_stays_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("json")
    try:
        raise KeyError("gone")
    except KeyError:
        structlog.get_logger("x").error("failed", exc_info=True)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "KeyError" in json.loads(lines[0])["exception"]
