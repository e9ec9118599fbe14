"""What a backend is: a name, and the two verbs that every one of them has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from gpusvm.device import Availability

if TYPE_CHECKING:
    import numpy as np

    from gpusvm.io.checkpoint import Checkpoint
    from gpusvm.model import SVMModel
    from gpusvm.params import Problem, Resources, Stopping
    from gpusvm.solver.path import Chain, Solved

__all__ = ["Availability", "Backend", "Progress", "Resume", "SharingBackend"]


class Progress(Protocol):
    """Called as training goes on: class pairs done and in all, and the pair last finished."""

    def __call__(self, done: int, total: int, latest: str) -> None: ...


@dataclass(frozen=True)
class Resume:
    """What a training goes on from.

    Attributes
    ----------
    checkpoint : Checkpoint, optional
        Finished pairs are taken from it, and those finished now are added. For a backend that is
        `resumable`.
    start : SVMModel, optional
        A model of the same samples, from whose coefficients the problems begin. For a backend that
        `goes_on`.
    """

    checkpoint: Checkpoint | None = None
    start: SVMModel | None = None


FROM_NOTHING = Resume()
"""A training from its beginning."""


class Backend(Protocol):
    """A way to train. Each file beside this one has one: its module-level ``backend``."""

    name: str
    runs: str
    """What trains, and on what, in a few words."""
    tasks: frozenset[str]
    """Which of `gpusvm.params.TASKS` it trains."""
    resumable: bool
    """Whether `fit` takes a `resume`, and heeds its checkpoint."""
    goes_on: bool
    """Whether `fit` heeds a time limit, and the start of its `resume`."""
    shares_folds: bool
    """Whether `folds` may solve many of its trainings together, in its place: it is a
    `SharingBackend`."""
    takes_sparse: bool
    """Whether X may be CSR (`sparse.Sparse`)."""

    def probe(self) -> Availability:
        """Whether this backend can run here, and why not. Never raises.

        Takes milliseconds where the answer is no. Where a CUDA device works, a yes may cost the
        import of the GPU library: nothing less tells a working one from a broken one.
        """

    def fit(
        self,
        X: Any,
        y: np.ndarray,
        problem: Problem,
        stopping: Stopping,
        resources: Resources,
        *,
        sample_weight: np.ndarray | None = None,
        progress: Progress | None = None,
    ) -> SVMModel:
        """Train on validated data.

        The model says that a pair (or its single function) converged only where its gap,
        recomputed from float64 kernel values, is at most twice `stopping.tol`; of any other a
        ConvergenceWarning tells the cause and the cure.

        Parameters
        ----------
        X : (n, n_features) array, float32 or float64
            NumPy, or CuPy for a backend that runs on the device; (n, n) kernel values for a
            precomputed kernel. CSR where the backend takes it: the support vectors of the model
            are then CSR too.
        y : (n,) array
            Labels, at least two different ones; float64 targets of a regression; zeros for one
            class.
        problem : Problem
            Of a task that is among `tasks`.
        stopping : Stopping
        resources : Resources
        sample_weight : (n,) float64 array, optional
            Factor on C for each sample; samples of weight zero take no part.
        progress : Progress, optional
        """


class SharingBackend(Backend, Protocol):
    """A backend that solves many trainings of the same samples together."""

    on_cpu: bool
    """Whether it does so on the cores of this machine: then joblib's workers can do it too, folds
    of many small classes have compiled code of their own, and all kernel values of a pair of
    classes have to fit in memory."""

    def solve_chains(
        self,
        X: Any,
        blocks: Sequence[np.ndarray],
        chains: Sequence[Chain],
        stopping: Stopping,
        resources: Resources,
        report: Callable[[int, Solved], None],
        look: Callable[[], None],
    ) -> None:
        """Solve chains of C-SVC over the same samples: see `solver.path.solve_chains`.

        Parameters
        ----------
        X : (n_samples, n_features) array, float32 or float64, or CSR, as for `fit`
        blocks : sequence of int64 arrays
            The rows of X in each block.
        chains : sequence of Chain
            Their kernels are of one name.
        stopping : Stopping
            Without limits on steps or time.
        resources : Resources
        report : callable
            ``report(index, solved)``, in the caller's thread, for each chain as it is done.
        look : callable
            Called in the caller's thread, some ten times a second. What it raises ends the work.
        """

    def pair_decisions(self, model: SVMModel, X: Any, resources: Resources) -> np.ndarray:
        """The decision values (m, n_pairs) of samples X (m, n_features).

        Called by what `solve_chains` reports to.
        """
