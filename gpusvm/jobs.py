"""How much runs side by side on a CPU: the one place that reads n_jobs and joblib's context."""

from __future__ import annotations

from functools import cache

import joblib


@cache
def n_cores() -> int:
    """The cores that this process may use, within its control group; asked once, since it takes reading files."""
    return int(joblib.cpu_count())


def effective_jobs(n_jobs: int | None) -> int:
    """How many threads or jobs to use: `n_jobs`, else what joblib's context says, else every core.

    Inside another joblib worker (a grid search, say) the default is one, so that levels do not multiply.
    """
    if n_jobs is None:
        context, context_jobs = joblib.parallel.get_active_backend()
        nested = bool(getattr(context, "nesting_level", 0))
        if not nested and not _context_sets_jobs():
            return n_cores()
        n_jobs = context_jobs
    return joblib.effective_n_jobs(n_jobs)


def _context_sets_jobs() -> bool:
    """Whether a ``parallel_config`` says how many jobs; joblib's answer is 1 also where nobody said anything."""
    config = getattr(joblib.parallel._backend, "config", joblib.parallel.default_parallel_config)
    return config["n_jobs"] is not joblib.parallel.default_parallel_config["n_jobs"]
