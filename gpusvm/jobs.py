"""How much runs side by side on a CPU: the one place that reads n_jobs and joblib's context."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from typing import Any

import joblib
from joblib.parallel import LokyBackend, MultiprocessingBackend, SequentialBackend, ThreadingBackend

from gpusvm.compat import joblib_parallel
from gpusvm.errors import TrainingError

_ON_THIS_MACHINE = (SequentialBackend, ThreadingBackend, LokyBackend, MultiprocessingBackend)


@cache
def n_cores() -> int:
    """The cores that this process may use, within its control group.

    Asked once, since it takes reading files.
    """
    return int(joblib.cpu_count())


def effective_jobs(n_jobs: int | None) -> int:
    """How many threads or jobs to use: `n_jobs`, else what joblib's context says, else every core.

    Inside another joblib worker (a grid search, say) the default is one, so that levels do not
    multiply.
    """
    if n_jobs is None:
        context, context_jobs = joblib.parallel.get_active_backend()
        nested = bool(getattr(context, "nesting_level", 0))
        if not nested and not _context_sets_jobs():
            return n_cores()
        n_jobs = context_jobs
    return joblib.effective_n_jobs(n_jobs)


def _context_sets_jobs() -> bool:
    """Whether a ``parallel_config`` says how many jobs.

    joblib's answer is 1 also where nobody said anything.
    """
    default = joblib_parallel.default_parallel_config
    return getattr(joblib_parallel._backend, "config", default)["n_jobs"] is not default["n_jobs"]


def run_elsewhere() -> bool:
    """Whether joblib's context sends tasks past this machine: to dask.distributed, for one."""
    context, _ = joblib.parallel.get_active_backend(prefer="threads")
    return not isinstance(context, _ON_THIS_MACHINE)


def as_they_finish(tasks: Iterable[Any], n_jobs: int) -> Generator[Any, None, None]:
    """The results of joblib's delayed calls, run where its context says, by default in threads.

    Raises
    ------
    TrainingError
        A worker process of this machine ended before its task was done.
    """
    context, _ = joblib.parallel.get_active_backend(prefer="threads")
    # For the sake of progress; multiprocessing can only return all at the end.
    return_as = "generator_unordered" if context.supports_return_generator else "list"
    try:
        yield from joblib.Parallel(n_jobs=n_jobs, prefer="threads", return_as=return_as)(tasks)
    except BrokenProcessPool as error:
        raise TrainingError(
            "a worker process of joblib's ended before its class pair was solved, as where memory runs out; "
            "give it more memory, or fewer jobs (n_jobs)"
        ) from error
