"""As many threads as a container has processors, and not as the machine below it has."""

import os
from pathlib import Path

import pytest

from service.__main__ import run
from service.cpus import cpu_limit, cpus_of, settle_threads


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.mark.parametrize(
    ("files", "own", "expected"),
    [
        ({"cpu.max": "200000 100000\n"}, "0::/\n", 2),
        ({"cpu.max": "250000 100000\n"}, "0::/\n", 3),
        ({"cpu.max": "10000 100000\n"}, "0::/\n", 1),
        ({"cpu.max": "max 100000\n"}, "0::/\n", None),
        # a slice inside of a smaller one
        ({"a/cpu.max": "200000 100000\n", "a/b/cpu.max": "400000 100000\n"}, "0::/a/b\n", 2),
        ({"cpu/cpu.cfs_quota_us": "150000\n", "cpu/cpu.cfs_period_us": "100000\n"}, "4:cpu,cpuacct:/\n", 2),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, "4:cpu,cpuacct:/\n", None),
        # version 1 as a container sees it: its path is one of the machine's
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, "4:cpu,cpuacct:/kubepods/x\n", 3),
        ({"cpu.max": "nonsense\n"}, "", None),
        ({}, "0::/\n", None),
    ],
)
def test_the_limit_is_that_of_the_control_groups(
    files: dict[str, str], own: str, expected: int | None, tmp_path: Path
) -> None:
    for name, text in files.items():
        write(tmp_path / "cgroup" / name, text)
    write(tmp_path / "own", own)
    assert cpu_limit(tmp_path / "cgroup", tmp_path / "own") == expected


def test_without_control_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert cpu_limit(tmp_path / "none", tmp_path / "neither") is None


@pytest.mark.parametrize(
    ("limit", "requested", "expected"),
    [
        (None, "4", 4),
        (2, "4", 2),  # of what is both limited and requested, the limit
        (8, "2", 8),
        (None, "0", None),  # what Kubernetes says of a pod without a request
        (None, "", None),
        (None, None, None),
        (None, "500m", None),
        (None, "²", None),
        (3, "many", 3),
    ],
)
def test_a_request_counts_where_there_is_no_limit(
    limit: int | None, requested: str | None, expected: int | None
) -> None:
    assert cpus_of(limit, {} if requested is None else {"CPU_REQUEST": requested}) == expected


@pytest.mark.parametrize(
    ("limit", "environment", "expected"),
    [
        (2, {}, "2"),
        (2, {"OMP_NUM_THREADS": "5"}, "5"),
        (None, {}, None),
        (None, {"CPU_REQUEST": "4"}, "4"),
        (None, {"CPU_REQUEST": "4", "OMP_NUM_THREADS": "1"}, "1"),
    ],
)
def test_a_job_has_as_many_threads_as_processors_unless_told_otherwise(
    limit: int | None, environment: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("service.cpus.cpu_limit", lambda: limit)
    run(["config", "--check"])
    assert os.environ.get("OMP_NUM_THREADS") == expected


@pytest.mark.parametrize(("processes", "expected"), [(1, "8"), (2, "4"), (3, "2"), (16, "1")])
def test_processes_of_one_training_share_the_processors_but_for_a_number_of_the_users_own(
    processes: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.cpus.cpu_limit", lambda: 8)
    monkeypatch.setattr("service.cpus._set_here", None)
    ours: dict[str, str] = {}
    settle_threads(ours)
    settle_threads(ours, processes)
    assert ours["OMP_NUM_THREADS"] == expected
    theirs = {"OMP_NUM_THREADS": "5"}
    settle_threads(theirs, processes)
    assert theirs["OMP_NUM_THREADS"] == "5"
