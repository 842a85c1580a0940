"""Whoever is to be told how a job ended is told once, signed, in time; and a job ends as it would have without."""

import base64
import hashlib
import hmac
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service import notification, stopping
from service.__main__ import read_settings, run
from service.artifacts.kinds.registry import Entry
from service.exits import MEANINGS, ExitCode
from service.notification import notify_champion, notify_end, signature
from service.outcome import End
from service.settings.catalogue import all_settings
from service.settings.variables import misspelt_variables
from tests.receivers import Receiver, receiving
from tests.servers import free_port

SECRET = base64.b64encode(bytes(range(32))).decode()


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Receiver]:
    """One that this process is to tell; and a store with nothing in it."""
    monkeypatch.setenv("ARTIFACTS_URI", str(tmp_path / "artifacts"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("LOG_FORMAT", "json")
    monkeypatch.setattr(stopping, "_requested_at", None)
    with receiving() as found:
        monkeypatch.setenv("NOTIFY_URL", found.url)
        yield found


@pytest.fixture
def secret_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "secret"
    file.write_text(f"whsec_{SECRET}\n")
    monkeypatch.setenv("NOTIFY_SECRET_FILE", str(file))
    return file


def verified(headers: dict[str, str], body: bytes) -> bool:
    """As a receiver checks it, by the text of the specification and not by our code."""
    signed = b".".join([headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body])
    wanted = base64.b64encode(hmac.new(base64.b64decode(SECRET), signed, hashlib.sha256).digest()).decode()
    fresh = abs(time.time() - int(headers["webhook-timestamp"])) < 60
    return fresh and f"v1,{wanted}" in headers["webhook-signature"].split(" ")


def said(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_the_signature_is_that_of_the_published_vector_of_standard_webhooks() -> None:
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert (
        signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
        == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


@pytest.mark.usefixtures("secret_file")
def test_the_end_of_a_job_is_told_as_a_signed_cloud_event_with_its_outcome(
    receiver: Receiver, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["promote", "--promote-model", "pixel-art", "--run-id", "ours-1"]) == ExitCode.MISSING_INPUT
    [(path, headers, body)] = receiver.requests
    [event] = receiver.events()
    assert path == "/hook/canary7path"
    assert headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert verified(headers, body)
    assert headers["webhook-id"] == event["id"]
    assert (event["specversion"], event["datacontenttype"]) == ("1.0", "application/json")
    assert (event["type"], event["subject"]) == ("io.github.sd-lora-service.job.failed", "promote")
    assert event["source"] == f"{(tmp_path / 'artifacts').as_uri()}/runs/ours-1"
    told = event["data"]
    assert (told["job"], told["run_id"], told["exit_code"], told["exit_name"]) == (
        "promote",
        "ours-1",
        66,
        "MISSING_INPUT",
    )
    assert "ours-1" in told["error"]
    assert told["next"] == MEANINGS[ExitCode.MISSING_INPUT].next
    assert 0 <= told["seconds"] < 60
    assert said(capsys)[-1]["event"] == "notified"


@pytest.mark.parametrize(
    ("code", "kind"),
    [(ExitCode.DONE, "done"), (ExitCode.STOPPED, "stopped"), (ExitCode.REJECTED, "failed"), (ExitCode.BUG, "failed")],
)
def test_the_type_says_whether_it_is_done_goes_on_later_or_failed(
    code: ExitCode, kind: str, receiver: Receiver
) -> None:
    notify_end("train", End(code, result="runs/r/lora"))
    [event] = receiver.events()
    assert event["type"] == f"io.github.sd-lora-service.job.{kind}"
    assert event["data"]["artifact"] == "runs/r/lora"


def test_an_outcome_that_does_not_fit_into_the_status_of_a_pod_is_told_whole(receiver: Receiver) -> None:
    notify_end("train", End(ExitCode.BUG, "e" * 9000))
    assert receiver.events()[0]["data"]["error"] == "e" * 9000


@pytest.mark.usefixtures("secret_file")
def test_a_receiver_that_is_busy_is_told_again_under_the_same_id_and_a_signature_of_its_own(receiver: Receiver) -> None:
    receiver.answers = [500, 429, 503, 200]
    notify_end("train", End(ExitCode.DONE))
    assert len(receiver.requests) == 4
    assert len({headers["webhook-id"] for _, headers, _ in receiver.requests}) == 1
    assert all(verified(headers, body) for _, headers, body in receiver.requests)


@pytest.mark.parametrize("answer", [400, 401, 404, 410])
def test_a_receiver_that_refuses_is_not_asked_again_and_the_job_ends_as_it_would_have(
    answer: int, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver.answers = [answer]
    assert run(["promote", "--promote-model", "pixel-art"]) == ExitCode.MISSING_INPUT
    assert len(receiver.requests) == 1
    warning = said(capsys)[-1]
    assert (warning["event"], warning["level"]) == ("not notified", "warning")
    assert warning["reason"] == f"the answer is {answer}"


@pytest.mark.parametrize("answer", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(answer: int, receiver: Receiver, capsys: pytest.CaptureFixture[str]) -> None:
    receiver.answers = [answer]
    notify_end("train", End(ExitCode.DONE))
    assert [path for path, _, _ in receiver.requests] == ["/hook/canary7path"]
    capsys.readouterr()


@pytest.mark.usefixtures("receiver")
def test_a_receiver_that_is_not_there_is_a_warning_within_the_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NOTIFY_URL", f"http://127.0.0.1:{free_port()}/x")
    monkeypatch.setenv("NOTIFY_SECONDS", "1")
    began = time.monotonic()
    assert run(["promote", "--promote-model", "pixel-art"]) == ExitCode.MISSING_INPUT
    assert time.monotonic() - began < 5
    assert "refused" in said(capsys)[-1]["reason"]


@pytest.mark.parametrize("answer", [500, 204])
def test_a_receiver_that_hangs_delays_the_end_no_longer_than_it_may(
    answer: int, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.hang, receiver.answers = 60, [answer]
    monkeypatch.setenv("NOTIFY_SECONDS", "0.5")
    began = time.monotonic()
    notify_end("train", End(ExitCode.DONE))
    assert 0.4 < time.monotonic() - began < 3
    assert receiver.requests


def test_a_request_to_stop_while_it_is_told_cuts_the_waiting_short(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.hang = 60
    monkeypatch.setenv("NOTIFY_SECONDS", "60")
    threading.Timer(0.3, lambda: monkeypatch.setattr(stopping, "_requested_at", time.monotonic())).start()
    began = time.monotonic()
    notify_end("train", End(ExitCode.DONE))
    assert time.monotonic() - began < 10


@pytest.mark.usefixtures("secret_file")
@pytest.mark.parametrize("moment", ["loading", "working"])
def test_a_job_that_is_told_to_stop_tells_that_and_ends_soon_even_if_the_receiver_hangs(
    moment: str, receiver: Receiver
) -> None:
    program = f"""
import sys, time
from service import __main__, stopping
from service.settings.catalogue import JOBS, Job

def work(settings):
    print("at work", flush=True)
    while {moment == "working"}:
        stopping.pause(1)
    with stopping.nothing_to_save():
        time.sleep(60)

Job.function = property(lambda self: work)
sys.exit(__main__.run(["prune"]))
"""
    for hang in (0, 60):
        receiver.hang = hang
        receiver.requests.clear()
        command = [sys.executable, "-c", program]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"at work\n"
            time.sleep(0.5)
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
        assert process.returncode == ExitCode.STOPPED
        assert time.monotonic() - began < 5
        assert [event["type"] for event in receiver.events()][:1] == ["io.github.sd-lora-service.job.stopped"]
        assert verified(*receiver.requests[0][1:])


def test_one_that_is_killed_tells_nothing_and_its_next_attempt_does(receiver: Receiver) -> None:
    program = """
import os, signal, sys
from service import __main__
from service.settings.catalogue import Job
Job.function = property(lambda self: lambda settings: os.kill(os.getpid(), int(sys.argv[1])))
sys.exit(__main__.run(["prune"]))
"""
    killed, again = (
        subprocess.run(
            [sys.executable, "-c", program, number], env=os.environ, check=False, capture_output=True
        ).returncode
        for number in (str(int(signal.SIGKILL)), "0")
    )
    assert (killed, again) == (-signal.SIGKILL, 0)
    assert [event["data"]["exit_name"] for event in receiver.events()] == ["DONE"]


WRONG = {
    "missing": None,
    "empty": b"",
    "short": b"whsec_" + base64.b64encode(bytes(23)),
    "long": b"whsec_" + base64.b64encode(bytes(65)),
    "no base64": b"whsec_canary7secret, which a person has typed",
    "no text": bytes(range(128, 200)),
    "a folder": None,
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_secret_that_is_none_is_one_line_before_the_job_begins_and_nothing_goes_out_unsigned(
    wrong: str, receiver: Receiver, secret_file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    secret_file.unlink()
    if wrong == "a folder":
        secret_file.mkdir()
    elif (content := WRONG[wrong]) is not None:
        secret_file.write_bytes(content)
    assert run(["train"]) == ExitCode.BAD_CONFIGURATION
    [line] = said(capsys)
    assert "NOTIFY_SECRET_FILE" in line["error"]
    assert "canary7" not in line["error"]
    assert receiver.requests == []
    assert not (tmp_path / "artifacts").exists()


def test_a_secret_without_what_stands_before_it_is_taken_as_well(receiver: Receiver, secret_file: Path) -> None:
    secret_file.write_text(SECRET)
    notify_end("train", End(ExitCode.DONE))
    assert verified(*receiver.requests[0][1:])


@pytest.mark.parametrize(
    "url",
    ["ftp://host/canary7", "host/canary7", "http:///canary7", "https://me:canary7@host/x", "https://canary7@host/x",
     "http://host:canary7/", "http://host/cana ry7/canary7"],
)  # fmt: skip
def test_an_address_that_is_none_or_holds_a_password_is_refused_and_not_repeated(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NOTIFY_URL", url)
    for command in (["train"], ["config", "--check"]):
        assert run(command) == ExitCode.BAD_CONFIGURATION
        told = capsys.readouterr().err
        assert "NOTIFY_URL" in told
        assert "canary7" not in told


@pytest.mark.usefixtures("secret_file")
def test_neither_the_path_of_the_address_nor_the_secret_is_in_anything_that_is_written(
    receiver: Receiver,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("OUTCOME_FILE", str(tmp_path / "outcome"))
    receiver.answers = [404]
    run(["promote", "--promote-model", "pixel-art"])
    run(["config"])
    settings = read_settings(all_settings()["train"], [])
    written = "".join(capsys.readouterr()) + (tmp_path / "outcome").read_text() + json.dumps(settings.public())
    assert "127.0.0.1" in settings.public()["notify_url"]
    assert "canary7" not in written
    assert SECRET not in written


def test_a_setting_may_be_given_by_a_flag_as_well(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_URL")
    assert run(["promote", "--promote-model", "x", "--notify-url", receiver.url]) == ExitCode.MISSING_INPUT
    assert len(receiver.requests) == 1


def test_doctor_says_where_it_is_told_and_that_a_secret_is_none(
    receiver: Receiver, secret_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_BASE", "miniature")
    monkeypatch.setenv("DOCTOR_MIN_DISK_GIB", "0.01")
    checks = []
    for content in (SECRET, "none"):
        secret_file.write_text(content)
        run(["doctor"])
        checks += [line for line in said(capsys) if line.get("check") == "notification"]
    assert [check["status"] for check in checks] == ["ok", "failure"]
    assert "127.0.0.1" in checks[0]["fact"]
    assert "NOTIFY_SECRET_FILE" in checks[1]["fact"]
    assert len(receiver.requests) == 1  # with a secret that is none, nothing goes out


def test_settings_that_are_refused_are_told_too(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAIN_RANK", "none")
    assert run(["train"]) == ExitCode.BAD_CONFIGURATION
    assert "TRAIN_RANK" in receiver.events()[0]["data"]["error"]


def test_nobody_is_told_of_questions_of_mistyped_jobs_and_without_an_address(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("champion", "config", "trian"):
        run([command])
    monkeypatch.setenv("NOTIFY_URL", "")
    run(["promote"])
    assert receiver.requests == []
    assert "notified" not in capsys.readouterr().err


@pytest.mark.parametrize(("rank", "told"), [("0", 1), ("1", 0)])
def test_of_the_processes_of_a_launcher_the_first_tells_the_end(
    rank: str, told: int, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setenv("RANK", rank)
    notify_end("train", End(ExitCode.DONE))
    assert len(receiver.requests) == told


def test_a_worker_leaves_it_to_the_process_that_has_started_it(receiver: Receiver) -> None:
    worker = multiprocessing.get_context("fork").Process(target=notify_end, args=("train", End(ExitCode.STALLED)))
    worker.start()
    worker.join(60)
    assert (worker.exitcode, receiver.requests) == (0, [])


def test_who_is_in_a_hurry_is_not_kept_by_it(receiver: Receiver) -> None:
    notify_end("train", End(ExitCode.STOPPED, at_once=True))
    assert receiver.requests == []


def test_a_new_champion_is_told_under_an_id_that_follows_from_its_entry(receiver: Receiver) -> None:
    notification.prepare("s3://bucket/team")
    entry = Entry.made_now(action="promote", lora="runs/r/lora", reason="better", by="ci")
    for key in ("registry/pixel-art/1", "registry/pixel-art/1", "registry/pixel-art/2"):
        notify_champion("pixel-art", key, entry.model_dump(mode="json"))
    first, again, other = receiver.events()
    assert first["id"] == again["id"] != other["id"]
    assert (first["type"], first["subject"]) == ("io.github.sd-lora-service.champion.changed", "runs/r/lora")
    assert first["source"] == "s3://bucket/team/registry/pixel-art"
    assert (first["data"]["model"], first["data"]["action"], first["data"]["reason"]) == (
        "pixel-art",
        "promote",
        "better",
    )


def test_a_variable_of_systemd_is_not_taken_for_a_misspelt_one_and_a_slip_is() -> None:
    assert misspelt_variables(["NOTIFY_SOCKET", "NOTIFY_ACCESS"]) == {}
    assert misspelt_variables(["NOTIFY_SECRETS_FILE"]) == {"NOTIFY_SECRETS_FILE": "NOTIFY_SECRET_FILE"}
