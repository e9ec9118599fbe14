"""Searches and probabilities with native-cuda, on a stand-in for CuPy, its kernels compiled for
the host."""

from __future__ import annotations

from dataclasses import replace

import fake_cuda
import numpy as np
import pytest
from sklearn.datasets import make_blobs

from gpusvm import SVC, SVCSearchCV
from gpusvm.backends import folds, native_cuda
from gpusvm.backends.native import backend as native_cpu
from gpusvm.errors import TrainingError
from gpusvm.params import Resources
from gpusvm.solver import cuda_rows
from gpusvm.sparse import as_csr
from gpusvm.tuning import Search, Settings
from tests.solver.cuda_shim.build import needs_compiler
from tests.solver.host_device import altered, host_rows

pytestmark = [needs_compiler, pytest.mark.usefixtures("cupy")]

GRID = {"C": [0.1, 1.0, 10.0], "gamma": [0.02, 0.2]}


def data(n_classes, n=90):
    X, y = make_blobs(n, 5, centers=n_classes, cluster_std=5.0, random_state=3)
    return X, np.array(["ash", "beech", "cedar"])[y]


def searched(X, y, backend, grid=None, **parameters):
    svc = SVC(backend=backend, tol=1e-5, **parameters)
    return SVCSearchCV(grid or GRID, svc=svc, cv=3, scoring=["accuracy", "f1_macro"], refit="accuracy").fit(X, y)


def agree(X, y, **options):
    ours, theirs = (searched(X, y, backend, **options) for backend in ("native-cuda", "native-cpu"))
    assert ours.solved_together_ and theirs.solved_together_
    for name, values in theirs.cv_results_.items():
        if "_test_" in name:
            np.testing.assert_allclose(ours.cv_results_[name], values, atol=1e-12, err_msg=name)
    assert ours.best_params_ == theirs.best_params_
    assert (ours.cv_results_["mean_fit_time"] > 0).all()
    np.testing.assert_allclose(ours.decision_function(X), theirs.decision_function(X), atol=1e-3)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("form", [np.asarray, as_csr], ids=["array", "sparse"])
def test_a_search_finds_what_native_cpu_finds(n_classes, form):
    X, y = data(n_classes)
    agree(form(X), y)


def test_kernels_and_weights_are_the_svcs():
    X, y = data(3)
    grid = [
        {"kernel": ["rbf"], "gamma": ["scale"], "C": [1.0, 5.0]},
        {"kernel": ["linear"], "C": [0.01, 0.1], "class_weight": [None, "balanced"]},
    ]
    agree(X / X.std(axis=0), y, grid=grid)


def test_kernel_values_may_be_given():
    X, y = data(2)
    agree(X @ X.T / 100, y, grid={"C": [0.1, 1.0]}, kernel="precomputed")


def test_gpusvm_tune_finds_the_same():
    X, y = data(3)
    found = []
    for backend in (native_cuda.backend, native_cpu):
        looks = []
        search = Search(
            X, y, Settings(folds=3, tol=1e-5), Resources(), backend=folds.sharing(backend, X),
            watch=lambda looks=looks: looks.append(True),
        )  # fmt: skip
        search.run([0.1, 1.0, 10.0], [0.02, 0.2])
        found.append({trial: (result.scores, result.given_up) for trial, result in search.results.items()})
        assert len(looks) > 6
    assert found[0] == found[1]


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("where", ["host", "device"])
def test_probabilities_are_those_of_native_cpu(monkeypatch, n_classes, where):
    X, y = data(n_classes)
    calls, solve_chains = [], native_cuda.NativeCudaBackend.solve_chains

    def counted(self, X, blocks, chains, *arguments):
        calls.append(len(chains))
        solve_chains(self, X, blocks, chains, *arguments)

    monkeypatch.setattr(native_cuda.NativeCudaBackend, "solve_chains", counted)
    theirs = SVC(probability=True, backend="native-cpu", gamma=0.05, tol=1e-5).fit(X, y)
    given = X.view(fake_cuda.FakeArray) if where == "device" else X
    ours = SVC(probability=True, backend="native-cuda", gamma=0.05, tol=1e-5).fit(given, y)
    assert calls == [3 * n_classes * (n_classes - 1) // 2], "the folds were not solved together"
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-3)


def test_samples_are_packed_once_for_all_gammas(cupy, monkeypatch):
    device = replace(native_cuda.solver_device(), xp=np, rows=host_rows)
    monkeypatch.setattr(native_cuda, "solver_device", lambda: device)
    monkeypatch.setattr(cuda_rows, "to_device", np.asarray)
    packed, pack = [], cuda_rows._Dense.pack

    def counted(self, X, dtype, xp):
        packed.append(np.dtype(dtype).name)
        pack(self, X, dtype, xp)

    monkeypatch.setattr(cuda_rows._Dense, "pack", counted)
    X, y = data(2)
    searched(X / 10, y, "native-cuda")
    assert packed.count("float32") == 2, "once for the search, once for the last training"
    assert packed.count("float64") <= 2


def test_a_failure_on_the_gpu_is_a_training_error(monkeypatch):
    broken = fake_cuda.raising_inside("cupy._core.core", RuntimeError("out of order"))
    device = altered(native_cuda.solver_device(), smo=broken)
    monkeypatch.setattr(native_cuda, "solver_device", lambda: device)
    with pytest.raises(TrainingError, match="the GPU failed while training"):
        searched(*data(2), "native-cuda")


def test_memory_for_not_even_one_chain_is_an_error_that_names_the_budget():
    with pytest.raises(TrainingError, match=r"not enough memory on the GPU.*cache_size=1 MB"):
        searched(*data(2, n=900), "native-cuda", cache_size=1.0)
