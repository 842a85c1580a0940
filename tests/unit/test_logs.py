"""JSON lines in a pipe, progress bars on a terminal."""

import json

import pytest
import structlog

from service.logs import configure_logs, progress_bar


def test_in_a_pipe_every_event_is_one_json_line_with_its_context(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("auto", job="train", run_id="r1")
    structlog.get_logger("x").info("something happened", step=3)
    event = json.loads(capsys.readouterr().err)
    assert (event["event"], event["job"], event["run_id"], event["step"]) == ("something happened", "train", "r1", 3)
    assert {"time", "level"} <= event.keys()


def test_in_a_pipe_progress_is_some_ten_events_however_long_the_loop(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("json")
    assert list(progress_bar(range(995), "steps", 995)) == list(range(995))
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert 8 <= len(events) <= 12
    assert (events[-1]["done"], events[-1]["total"]) == (995, 995)


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
