"""The backends there are, and the one place where one of them is chosen."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from gpusvm.errors import BackendUnavailableError, UsageError
from gpusvm.params import TASKS

if TYPE_CHECKING:
    from gpusvm.backends.base import Availability, Backend

ENVIRONMENT_VARIABLE = "GPUSVM_BACKEND"

_MODULES = {
    "cuml": "gpusvm.backends.cuml",
    "native-cuda": "gpusvm.backends.native_cuda",
    "native-cpu": "gpusvm.backends.native",
    "sklearn": "gpusvm.backends.sklearn",
    "sklearnex": "gpusvm.backends.sklearnex",
}
ALIASES = {"native": ("native-cuda", "native-cpu")}
"""Names that stand for the first of several backends that can run."""

GPU_BACKENDS = frozenset({"cuml", "native-cuda"})
_AUTO_ORDER = ("cuml", "sklearn")


@dataclass(frozen=True)
class Choice:
    """A backend, and why it is this one.

    Attributes
    ----------
    backend : Backend
    reason : str
        A phrase to print after the backend's name.
    asked_by : str
        Who named the backend: "the caller" or the environment variable; empty where ``auto`` found
        it.
    notice : str
        Empty, or one line for a machine with an NVIDIA device that trains on its CPU all the same:
        what is missing and the command that brings it.
    """

    backend: Backend
    reason: str
    asked_by: str = ""
    notice: str = ""


def backend_names() -> list[str]:
    """Every backend's name, whether or not it runs here."""
    return list(_MODULES)


def get_backend(name: str, origin: str = "") -> Backend:
    """The backend of that name.

    Raises UsageError for a name that does not exist; `origin` is said after it.
    """
    if name in ALIASES:
        return _first_available(ALIASES[name])[0]
    if name not in _MODULES:
        known = ", ".join(("auto", *_MODULES, *ALIASES))
        raise UsageError(f"no backend is called {name!r}{origin}; choose from {known}")
    backend: Backend = import_module(_MODULES[name]).backend
    return backend


def takes_sparse(name: str) -> bool:
    """Whether every backend that this name may come to mean trains on sparse samples.

    True for a name unknown.
    """
    names = _AUTO_ORDER if name == "auto" else ALIASES.get(name, (name,))
    return all(get_backend(found).takes_sparse for found in names if found in _MODULES)


def names_of_those(can: Callable[[Backend], bool]) -> str:
    """The names of the backends of which `can` is true, as they stand in a sentence."""
    *others, last = [name for name in _MODULES if can(get_backend(name))]
    return f"{', '.join(others)} and {last}" if others else last


def _first_available(
    names: Sequence[str], origin: str = "", task: str = "c_svc"
) -> tuple[Backend, Availability, list[tuple[str, Availability]]]:
    """The first of these backends that can run, what it says, and who refused before it.

    The last if none can. Of several, those that do not train the task are left out.
    """
    refusals: list[tuple[str, Availability]] = []
    if len(names) > 1:
        names = [name for name in names if task in get_backend(name, origin).tasks]
    for name in names:
        backend = get_backend(name, origin)
        found = backend.probe()
        if found.ok or name == names[-1]:
            break
        refusals.append((name, found))
    return backend, found, refusals


def probe_all() -> dict[str, Availability]:
    """What each backend says of this machine."""
    return {name: get_backend(name).probe() for name in _MODULES}


def choose_backend(name: str = "auto", *, require_gpu: bool = False, task: str = "c_svc") -> Choice:
    """Pick the backend that trains.

    ``"auto"`` means what the environment variable GPUSVM_BACKEND says or, where it says nothing,
    cuML on a machine where it works and scikit-learn on any other.

    Parameters
    ----------
    name : str
        A backend's name, or ``"auto"``.
    require_gpu : bool
        Whether to fail instead of training on a CPU.
    task : str
        One of `gpusvm.params.TASKS`.

    Raises
    ------
    UsageError
        No backend has that name, or that backend does not train the task.
    BackendUnavailableError
        The backend asked for cannot run here, or a GPU is required and none is usable.
    """
    asked_by = "the caller"
    if name == "auto" and (from_environment := os.environ.get(ENVIRONMENT_VARIABLE)):
        name, asked_by = from_environment, ENVIRONMENT_VARIABLE
    choice = _best_available(task) if name == "auto" else _as_asked(name, asked_by, task)
    if require_gpu and choice.backend.name not in GPU_BACKENDS:
        raise BackendUnavailableError(_no_gpu(choice, task))
    return choice


def _as_asked(name: str, asked_by: str, task: str) -> Choice:
    origin = _origin(asked_by)
    backend, found, refusals = _first_available(ALIASES.get(name, (name,)), origin, task)
    if task not in backend.tasks:
        others = names_of_those(lambda other: task in other.tasks)
        raise UsageError(f"backend {name}{origin} does not train {TASKS[task]}; {others} do")
    if not found.ok:
        mend = f"; try: {found.hint}" if found.hint else "; gpusvm info shows what this machine can run"
        raise BackendUnavailableError(f"backend {name}{origin} cannot run here: {found.reason}{mend}")
    return Choice(backend, f"asked for{origin}: {_reason(found, refusals)}", asked_by, _notice(refusals))


def _reason(found: Availability, refusals: list[tuple[str, Availability]]) -> str:
    return "; ".join(f"{other} cannot run: {no.reason}" for other, no in refusals) or found.reason


def _origin(asked_by: str) -> str:
    """What is said after a backend's name where it is not plain who named it."""
    return f" (from {asked_by})" if asked_by == ENVIRONMENT_VARIABLE else ""


def _best_available(task: str) -> Choice:
    backend, found, refusals = _first_available(_AUTO_ORDER, task=task)
    return Choice(backend, _reason(found, refusals), notice=_notice(refusals))


def _notice(refusals: list[tuple[str, Availability]]) -> str:
    """One line where there is a device to gain by mending something."""
    from gpusvm import device

    for name, found in refusals:
        if found.hint and device.query_driver().status is not None:
            return f"This machine has an NVIDIA driver, but {name} cannot run: {found.reason}. To mend it: {found.hint}"
    return ""


def _no_gpu(choice: Choice, task: str) -> str:
    if choice.asked_by:
        name = choice.backend.name + _origin(choice.asked_by)
        return f"a GPU is required but backend {name} runs on the CPU; use --backend auto, cuml or native-cuda"
    if task not in get_backend("cuml").tasks:
        return f"a GPU is required, on which auto trains no {TASKS[task]}; use --backend native-cuda"
    found = get_backend("cuml").probe()
    mend = f"; try: {found.hint}" if found.hint else ""
    return f"a GPU is required but none is usable: {found.reason}{mend}"
