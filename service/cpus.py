"""How many processors a container may use: libraries see those of the whole machine, and their threads wait for each other."""

import math
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


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
