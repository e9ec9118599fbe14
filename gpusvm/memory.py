"""How much memory there is to use, and how much was used."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")
# Version 1 writes "no limit" as the largest number of pages.
_V1_NO_LIMIT = 2**62


def available_mb() -> float:
    """Memory that new work can take without swapping, in MB.

    It is within the control group and ``ulimit -v``.
    """
    import psutil

    limits = [psutil.virtual_memory().available / 2**20, address_space_mb(), _cgroup_available_mb()]
    return min(limit for limit in limits if limit is not None)


def total_mb() -> float:
    """Memory of the machine in MB, or of the control group where that is limited to less."""
    import psutil

    total, group = psutil.virtual_memory().total, _cgroup()
    return (total if group is None else min(total, group[0])) / 2**20


def default_cache_mb(free_mb: float | None = None) -> float:
    """Memory for kernel values in MB where the caller asks for none: a third of what is free.

    Parameters
    ----------
    free_mb : float, optional
        Free memory of the device that trains; by default that of the host.
    """
    return (available_mb() if free_mb is None else free_mb) / 3


def address_space_mb() -> float | None:
    """What ``ulimit -v`` leaves to this process, in MB.

    None without such a limit, or where it cannot be known.
    """
    import psutil

    process = psutil.Process()
    if not hasattr(process, "rlimit"):  # known on Linux and FreeBSD
        return None
    limit, _ = process.rlimit(psutil.RLIMIT_AS)
    return None if limit == psutil.RLIM_INFINITY else max(0.0, (limit - process.memory_info().vms) / 2**20)


def require_address_space(needed_mb: float, purpose: str) -> None:
    """Fail before the work where ``ulimit -v`` leaves less than `needed_mb`.

    BLAS and other libraries end the process, or wait for ever, where they are refused memory
    half-way.

    Raises
    ------
    MemoryError
        Says what is needed.
    """
    left = address_space_mb()
    if left is not None and left < needed_mb:
        raise MemoryError(f"{purpose} needs about {needed_mb:.0f} MB, and ulimit -v leaves {left:.0f} MB")


def reset_peak_rss() -> None:
    """Start counting peak resident memory from here, where the system allows that (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_rss_mb() -> float:
    """Largest resident memory of this process so far, or since `reset_peak_rss`, in MB.

    On Linux this is VmHWM, since getrusage's ru_maxrss starts, in a new process, at what its
    parent had; psutil knows a peak on Windows alone.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    try:
        import resource  # which Windows does not have
    except ImportError:
        import psutil

        return float(psutil.Process().memory_info().peak_wset / 2**20)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _cgroup_available_mb() -> float | None:
    group = _cgroup()
    return None if group is None else max(0.0, (group[0] - group[1]) / 2**20)


def _cgroup() -> tuple[int, int] | None:
    """The control group's limit and what is used of it, in bytes; None without a limit.

    psutil does not know it. Pages of files read long ago count as used, and yet the kernel gives
    them up before it refuses memory: a container that has read its data would else seem full.
    """
    for folder, limit_name, used_name, idle_name in (
        (CGROUP_ROOT, "memory.max", "memory.current", "inactive_file"),
        (CGROUP_ROOT / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        with suppress(OSError, ValueError):
            limit = int((folder / limit_name).read_text())  # "max" is no number
            used = int((folder / used_name).read_text()) - _statistic(folder / "memory.stat", idle_name)
            return None if limit >= _V1_NO_LIMIT else (limit, used)
    return None


def _statistic(path: Path, name: str) -> int:
    with suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return 0
