"""What ``gpusvm info`` does: say what this machine can run, and why not the rest."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from gpusvm.backends.registry import ENVIRONMENT_VARIABLE, choose_backend, get_backend, probe_all
from gpusvm.cli.console import bold, results
from gpusvm.cli.model_argument import load_named_model
from gpusvm.data import CATALOGUE, find_local
from gpusvm.device import dotted, probe_cuda
from gpusvm.errors import GpuSvmError
from gpusvm.jobs import n_cores
from gpusvm.memory import available_mb
from gpusvm.model import SVMModel
from gpusvm.packages import package_versions
from gpusvm.params import KERNEL_PARAMETERS, TASKS
from gpusvm.preprocess import step_to_dict
from gpusvm.version import __version__

_PACKAGES = ("numpy", "scikit-learn", "joblib", "scikit-learn-intelex", "cupy", "cuml", "onnx", "matplotlib")

_MOST_NAMED = 30
"""Classes, or other items, that a line names."""


def describe_model(path: Path, as_json: bool) -> None:
    """Print what a model file holds."""
    console, facts = results(), describe(load_named_model(path))
    if as_json:
        console.print_json(data=facts)
        return
    for name, value in facts.items():
        console.print(f"{name.replace('_', ' ')}: {_in_words(value)}", soft_wrap=True)


def describe_machine(as_json: bool) -> None:
    """Print what this machine can run, and why not the rest."""
    console = results()
    facts = gather()
    if as_json:
        console.print_json(data=facts)
        return
    machine = facts["machine"]
    console.print(
        bold(f"gpusvm {__version__},"),
        f"Python {machine['python']} on {machine['system']}: "
        f"{machine['cores']} cores, {machine['memory_available_mb'] / 1024:.1f} GB of memory free",
    )
    driver = facts["cuda"]["detail"].get("driver_cuda_version")
    runs = f"; the driver runs CUDA {dotted(driver)}" if driver else ""
    console.print(f"CUDA: {facts['cuda']['reason']}{runs}", soft_wrap=True)
    for device in facts["cuda"]["detail"].get("devices", []):
        console.print(
            f"  device {device['index']}: {device['name']}, {device['memory_mb']} MB, "
            f"compute capability {device['compute_capability']}"
        )
    console.print()
    console.print(_backend_table(facts["backends"]))
    console.print(
        "\nauto is", bold(f"{facts['auto']['backend'] or 'nothing'}:"), facts["auto"]["reason"], soft_wrap=True
    )
    console.print()
    console.print("Packages: " + ", ".join(f"{name} {found or '-'}" for name, found in facts["packages"].items()))
    for name, place in facts["data"].items():
        console.print(f"Data set {name}: {place or f'not on this machine; gpusvm data fetch {name}'}")


def describe(model: SVMModel) -> dict[str, Any]:
    """What a model is, as plain JSON values."""
    parameters = {name: getattr(model.kernel, name) for name in KERNEL_PARAMETERS[model.kernel.name]}
    return {
        "kernel": {"name": model.kernel.name, **parameters},
        "task": TASKS[model.problem.task],
        "classes": model.classes.tolist(),
        "support_vectors": model.n_support_vectors,
        "features": model.n_features,
        "image_shape": model.image_shape,
        "columns": None if model.table is None else list(model.table.columns),
        "label_column": None if model.table is None else model.table.label_name,
        "preprocessing": [step_to_dict(step) for step in model.preprocessing],
        "converged": None if model.converged is None else bool(model.converged.all()),
        "provenance": model.provenance,
    }


def _in_words(value: Any) -> str:
    if value is None or value in ([], {}):
        return "-"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_in_words(item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        more = f", ... ({len(value):,})" if len(value) > _MOST_NAMED else ""
        return ", ".join(map(_in_words, value[:_MOST_NAMED])) + more
    return str(value)


def gather() -> dict[str, Any]:
    """Everything `info` tells, as plain JSON values."""
    cuda, versions = probe_cuda(), package_versions(_PACKAGES)
    return {
        "gpusvm": __version__,
        "machine": {
            "python": platform.python_version(),
            "system": platform.system(),
            "cores": n_cores(),
            "memory_available_mb": round(available_mb()),
        },
        "cuda": {"ok": cuda.ok, "reason": cuda.reason, "hint": cuda.hint, "detail": cuda.detail},
        "backends": {
            name: {"ok": found.ok, "runs": get_backend(name).runs, "reason": found.reason, "hint": found.hint}
            for name, found in probe_all().items()
        },
        "auto": _auto(),
        "packages": {name: versions.get(name) for name in _PACKAGES},
        "data": {name: _place(name) for name in CATALOGUE},
    }


def _auto() -> dict[str, str | None]:
    try:
        choice = choose_backend()
    except GpuSvmError as error:
        return {"backend": None, "reason": str(error)}
    reason = choice.reason + (f". {choice.notice}" if choice.notice else "")
    if not os.environ.get(ENVIRONMENT_VARIABLE):
        reason += f" ({ENVIRONMENT_VARIABLE} would change what auto means)"
    return {"backend": choice.backend.name, "reason": reason}


def _backend_table(backends: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("backend", "", "runs", "why"):
        table.add_column(title, overflow="fold")
    for name, found in backends.items():
        mark = Text("yes", style="green") if found["ok"] else Text("no", style="red")
        hint = f"; try: {found['hint']}" if found["hint"] else ""
        table.add_row(name, mark, found["runs"], found["reason"] + hint)
    return table


def _place(name: str) -> str | None:
    if not CATALOGUE[name].files:
        return "inside scikit-learn"
    found = find_local(name)
    return None if found is None else str(found)
