"""How much memory there is to use, and how much was used."""

from __future__ import annotations

import os
import resource
import sys
from contextlib import suppress
from pathlib import Path


def available_mb() -> float:
    """Memory that new work can take without swapping, in MB; a control group's limit is respected."""
    limits = [_cgroup_available_mb(), _machine_available_mb()]
    return min(limit for limit in limits if limit is not None)


def reset_peak_rss() -> None:
    """Start counting peak resident memory from here, where the system allows that (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_rss_mb() -> float:
    """Largest resident memory of this process so far, or since `reset_peak_rss`, in MB.

    On Linux this is VmHWM, since getrusage's ru_maxrss starts, in a new process, at what its parent had.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _machine_available_mb() -> float:
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) / 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20 / 2


def _cgroup_available_mb() -> float | None:
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
        return None if limit == "max" else max(0.0, (int(limit) - used) / 2**20)
    except (OSError, ValueError):
        return None
