"""How many processors a container may use: libraries see those of the whole machine, and their threads wait for each other.

A limit stands in the control groups. What a pod merely requests does not: of it they have a weight, which runtimes derive by
two formulas (linear; quadratic from runc 1.3.2 and crun 1.23 on), so that 100, which is also the weight of who requests
nothing, may mean one processor or two and a half. So the pod's manifest passes the request on, as CPU_REQUEST.
"""

import math
import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
REQUEST = "CPU_REQUEST"
"""Processors that the pod requests; 0, or none, where it requests none."""
THREADS = "OMP_NUM_THREADS"

_set_here: str | None = None


def settle_threads(environment: MutableMapping[str, str], processes: int = 1) -> None:
    """Sets OMP_NUM_THREADS for each of so many processes, where nobody else has: as many threads as processors in all."""
    global _set_here
    known = cpus_of(cpu_limit(), environment)
    if processes > 1:
        known = known or os.cpu_count()
    if known is not None and environment.get(THREADS) in (None, _set_here):
        _set_here = environment[THREADS] = str(max(1, known // processes))


def usable_cpus() -> int:
    """The processors that this process may use."""
    return cpus_of(cpu_limit(), os.environ) or os.cpu_count() or 1


def cpus_of(limit: int | None, environment: Mapping[str, str]) -> int | None:
    """The limit, else what CPU_REQUEST says; None where neither says anything."""
    requested = environment.get(REQUEST, "").strip()
    return limit or (int(requested) if requested.isascii() and requested.isdecimal() else 0) or None


def cpu_limit(cgroups: Path = CGROUPS, own: Path = OWN_CGROUPS) -> int | None:
    """The processors that the limits of this process's control groups allow, rounded up; None where nothing limits it."""
    limits = []
    for relative in _paths(own):
        folder = cgroups / relative
        for level in (folder, *folder.parents):
            if level.is_relative_to(cgroups):
                limits += [limit for limit in (_limit_of(level), _limit_of(level / "cpu")) if limit is not None]
    return max(1, math.ceil(min(limits))) if limits else None


def _paths(own: Path) -> list[str]:
    """The control groups of this process, relative to the root; the root itself too, which a container sees in their place."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        lines = []
    return ["", *(line.split(":", 2)[2].lstrip("/") for line in lines if line.count(":") >= 2)]


def _limit_of(folder: Path) -> float | None:
    """Version 2 has quota and period in one file, version 1 in two."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 and int(period) > 0 else None
    except (OSError, ValueError):
        return None  # "max", or no control group that limits processors
