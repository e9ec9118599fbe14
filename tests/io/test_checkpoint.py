"""A training that was cut off goes on from its checkpoint, to the same model bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from asking import asked
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from gpusvm import SVC
from gpusvm.backends import get_backend
from gpusvm.backends.base import Availability, Resume
from gpusvm.errors import ModelFileError, UsageError
from gpusvm.io.checkpoint import Checkpoint
from gpusvm.kernels import Kernel

PARAMS = asked(kernel=Kernel("rbf", gamma=0.05), C=5.0)


class CutOff(Exception):
    pass


def cut_off_after(n_pairs):
    def progress(done, total, latest):
        if done == n_pairs:
            raise CutOff

    return progress


@pytest.fixture(params=["native-cpu", "sklearn", pytest.param("native-cuda", marks=pytest.mark.gpu)])
def name(request):
    return request.param


def interrupted(path, name, X, y, n_pairs=7, **parameters):
    """Train until so many pairs are done; what they left is in the file."""
    svc = SVC(C=5, gamma=0.05, backend=name, n_jobs=1, **parameters)
    with pytest.raises(CutOff):
        svc.fit_with_progress(X, y, progress=cut_off_after(n_pairs), checkpoint=Checkpoint(path))
    assert path.exists()
    return svc


@pytest.mark.parametrize("dense", [False, True])
def test_goes_on_to_the_same_model(name, digits, tmp_path, rng, dense):
    X, y = digits[0][:500], digits[1][:500]
    if dense:
        X = rng.normal(size=X.shape).astype(np.float32) + X
    path = tmp_path / "pairs"
    svc = interrupted(path, name, X, y)
    calls = []
    svc.fit_with_progress(X, y, progress=lambda *c: calls.append(c[0]), checkpoint=Checkpoint(path))
    assert min(calls) >= 8 and max(calls) == 45, "pairs that were done have been solved again"
    whole = SVC(C=5, gamma=0.05, backend=name).fit(X, y)
    for field in ("dual_coef", "intercept", "support_indices", "n_iter", "converged"):
        np.testing.assert_array_equal(getattr(svc.model_, field), getattr(whole.model_, field))


def test_a_finished_checkpoint_needs_no_solving(name, digits, tmp_path):
    X, y = digits[0][:200], digits[1][:200]
    backend, checkpoint = get_backend(name), Checkpoint(tmp_path / "pairs")
    first = backend.fit(X, y, *PARAMS, resume=Resume(checkpoint))
    checkpoint.flush()
    calls = []
    again = backend.fit(
        X, y, *PARAMS, resume=Resume(Checkpoint(tmp_path / "pairs")), progress=lambda *c: calls.append(c)
    )
    np.testing.assert_array_equal(again.dual_coef, first.dual_coef)
    assert not calls


@pytest.mark.parametrize("other", ["data", "labels", "C", "kernel", "weights", "tol"])
def test_another_training_is_refused_and_the_file_left_alone(name, digits, tmp_path, other):
    X, y = digits[0][:200].copy(), digits[1][:200].copy()
    path = tmp_path / "pairs"
    interrupted(path, name, X, y)
    before = path.read_bytes()
    changed = {"C": 6} if other == "C" else {"kernel": "linear"} if other == "kernel" else {}
    changed |= {"tol": 1e-4} if other == "tol" else {}
    if other == "data":
        X[3, 30] += 0.25
    if other == "labels":
        y[:2] = y[1::-1]
    weight = np.r_[0.5, np.ones(199)] if other == "weights" else None
    svc = SVC(**({"C": 5, "gamma": 0.05, "backend": name} | changed))
    with pytest.raises(UsageError, match="the checkpoint of a training with other data, parameters"):
        svc.fit_with_progress(X, y, weight, checkpoint=Checkpoint(path))
    assert path.read_bytes() == before


def test_one_object_for_two_trainings_mixes_nothing(name, digits, tmp_path):
    X, y = digits[0][:200], digits[1][:200]
    checkpoint = Checkpoint(tmp_path / "pairs")
    SVC(C=5, gamma=0.05, backend=name).fit_with_progress(X, y, checkpoint=checkpoint)
    assert checkpoint.path.exists(), "pairs are on disk when the training is done"
    before = checkpoint.path.read_bytes()
    with pytest.raises(UsageError):
        SVC(C=50, gamma=0.05, backend=name).fit_with_progress(X, y[::-1], checkpoint=checkpoint)
    assert checkpoint.path.read_bytes() == before
    checkpoint.remove()
    found = SVC(C=50, gamma=0.05, backend=name).fit_with_progress(X, y[::-1], checkpoint=checkpoint)
    whole = SVC(C=50, gamma=0.05, backend=name).fit(X, y[::-1])
    np.testing.assert_array_equal(found.dual_coef_, whole.dual_coef_)


def test_threads_are_no_other_training(name, digits, tmp_path):
    path = tmp_path / "pairs"
    X, y = digits[0][:200], digits[1][:200]
    interrupted(path, name, X, y)
    SVC(C=5, gamma=0.05, backend=name, n_jobs=2).fit_with_progress(X, y, checkpoint=Checkpoint(path))


@pytest.mark.parametrize("backend", ["cuml", "sklearnex"])
def test_a_backend_that_keeps_none_says_so(backend, digits, tmp_path, monkeypatch):
    """Before it trains, so that none of them need be installed."""
    monkeypatch.setattr(type(get_backend(backend)), "probe", lambda self: Availability(True, "imagined"))
    with pytest.raises(UsageError, match="keeps no checkpoint; native-cuda, native-cpu and sklearn do"):
        SVC(backend=backend).fit_with_progress(digits[0], digits[1], checkpoint=Checkpoint(tmp_path / "pairs"))


def damaged(tensors, kind):
    if kind == "support out of range":
        tensors["support"][0] = 10**6
    elif kind == "nan":
        tensors["dual_coef"][0] = np.nan
    elif kind == "pair twice":
        tensors["pair"][0] = tensors["pair"][1]
    elif kind == "negative count":
        tensors["n_support"][0] -= 10**6
    elif kind == "count beyond its end":
        tensors["n_support"][:2] += 2**62
    elif kind == "alpha above C":
        tensors["dual_coef"][0] *= 1e6
    elif kind == "negative alpha":
        tensors["dual_coef"][0] *= -1
    elif kind == "short":
        tensors["bias"] = tensors["bias"][:-1]
    elif kind == "dtype":
        tensors["dual_coef"] = tensors["dual_coef"].astype(np.float32)
    return tensors


@pytest.mark.parametrize(
    "kind",
    [
        "support out of range",
        "nan",
        "pair twice",
        "negative count",
        "count beyond its end",
        "alpha above C",
        "negative alpha",
        "short",
        "dtype",
        "truncated",
        "empty",
        "foreign",
    ],
)
def test_a_damaged_checkpoint_is_refused(digits, tmp_path, kind):
    X, y, path = digits[0][:200], digits[1][:200], tmp_path / "pairs"
    svc = interrupted(path, "sklearn", X, y)
    if kind in ("truncated", "empty"):
        path.write_bytes(path.read_bytes()[: 100 if kind == "truncated" else 0])
    else:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata()
        metadata = {"format": "pt"} if kind == "foreign" else metadata
        save_file(damaged(load_file(path), kind), path, metadata=metadata)
    with pytest.raises(ModelFileError, match=r"damaged checkpoint|not a checkpoint"):
        svc.fit_with_progress(X, y, checkpoint=Checkpoint(path))


def test_what_rounding_takes_beyond_a_bound_is_no_damage(digits, tmp_path):
    """LIBSVM leaves a coefficient at C plus and minus the same number, which need not be C
    again."""
    X, y, path = digits[0][:200], digits[1][:200], tmp_path / "pairs"
    svc = interrupted(path, "sklearn", X, y)
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    tensors["dual_coef"][0] = np.nextafter(5.0, 6.0)
    save_file(tensors, path, metadata=metadata)
    svc.fit_with_progress(X, y, checkpoint=Checkpoint(path))
    tensors["dual_coef"][0] = 5.0 * (1 + 1e-9)
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(ModelFileError, match="damaged checkpoint"):
        svc.fit_with_progress(X, y, checkpoint=Checkpoint(path))


def test_what_a_solver_does_not_tell_stays_untold(digits, tmp_path):
    model = get_backend("sklearn").fit(
        digits[0][:200], digits[1][:200], *PARAMS, resume=Resume(Checkpoint(tmp_path / "p"))
    )
    assert model.dual_objective is None and np.isfinite(model.kkt_gap).all()
