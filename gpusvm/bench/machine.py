"""The machine that figures were measured on.

Figures of another machine can be compared with them only where that one matches it.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from gpusvm.device import probe_cuda
from gpusvm.memory import total_mb
from gpusvm.packages import package_versions
from gpusvm.version import __version__

_PACKAGES = ("numpy", "scipy", "scikit-learn", "joblib", "scikit-learn-intelex", "numba", "cupy", "cuml")
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
)


def describe_machine() -> dict[str, Any]:
    """The hardware, the system and every version that a figure depends on; plain JSON values.

    Nothing in it names the host, its users or its folders. docs/benchmarks.md explains the fields.
    """
    import joblib

    return {
        "cpu": _cpu_model(),
        "cores": joblib.cpu_count(),
        "memory_mb": int(total_mb()),
        "architecture": platform.machine(),
        "os": _os_name(),
        "python": platform.python_version(),
        "versions": {"gpusvm": __version__, **package_versions(_PACKAGES)},
        "blas": _blas(),
        "gpu": _gpu(),
        "environment": {name: os.environ[name] for name in _THREAD_VARIABLES if name in os.environ},
    }


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return f"{platform.system()} {platform.release()}"


def _blas() -> list[dict[str, Any]]:
    """The BLAS and OpenMP libraries loaded by NumPy and SciPy, without their paths."""
    import scipy.linalg  # noqa: F401 - loads the BLAS that is to be described
    from threadpoolctl import threadpool_info

    keys = ("user_api", "internal_api", "version", "architecture", "threading_layer", "num_threads")
    return [{key: library[key] for key in keys if key in library} for library in threadpool_info()]


def _gpu() -> dict[str, Any]:
    found = probe_cuda()
    return {"ok": found.ok, "reason": found.reason, **found.detail}
