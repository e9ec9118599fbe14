"""What is compiled for predictions: during training, to be ready, and no more than they need."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy.sparse import csr_array

from gpusvm import predict
from gpusvm.kernels import Kernel
from gpusvm.solver import prediction


@pytest.mark.parametrize(
    ("X", "kernel", "expected"),
    [
        (np.eye(3), Kernel(), [(np.float64, False)]),
        (np.eye(3, dtype=np.float32), Kernel("poly"), [(np.float32, False)]),
        (np.eye(3, dtype=np.uint8), Kernel("sigmoid"), [(np.float32, False)]),
        (csr_array(np.eye(3)), Kernel(), [(np.float64, False), (np.float64, True)]),
        (np.eye(3), Kernel("linear"), []),
        (np.eye(3), Kernel("precomputed"), []),
    ],
    ids=["float64", "float32", "bytes", "sparse", "linear", "precomputed"],
)
def test_training_compiles_what_predictions_may_need_and_no_more(X, kernel, expected, monkeypatch):
    asked = []
    monkeypatch.setattr(prediction, "prepare", lambda *kind: asked.append(kind))
    monkeypatch.setattr(prediction, "is_ready", lambda *kind: False)
    predict.compile_for_models_of(X, kernel)
    assert asked == expected
    monkeypatch.setattr(prediction, "is_ready", lambda *kind: True)
    predict.compile_for_models_of(X, kernel)
    assert asked == expected


SIGNATURES = """
import sys
from itertools import product
import numpy as np
from scipy.sparse import csr_array
from gpusvm.compat import Dispatcher
from gpusvm.kernels import Kernel
from gpusvm.solver import prediction

def compiled():
    modules = [module for name, module in sys.modules.items() if name.startswith("gpusvm.solver")]
    functions = {thing for module in modules for thing in vars(module).values() if isinstance(thing, Dispatcher)}
    return {(function.py_func.__qualname__, str(types)) for function in functions for types in function.signatures}

rng = np.random.default_rng(0)
for dtype, sparse in product((np.float32, np.float64), (False, True)):
    prediction.prepare(dtype, sparse)
    before, makes = compiled(), csr_array if sparse else np.ascontiguousarray
    for density, scale, k in product((1.0, 0.05), (1.0, 0.3), (2, 3, 7)):
        samples = makes((scale * (rng.random((500, 30)) < density) * rng.integers(1, 3, (500, 30))).astype(dtype))
        n_support, dual_coef = np.full(k, 70), rng.normal(size=(k - 1, 70 * k))
        parts = samples[: 70 * k], n_support, dual_coef, np.zeros(k * (k - 1) // 2)
        for kernel in (Kernel(), Kernel("poly")):
            blocks = prediction.DecisionBlocks(*parts, kernel, np.dtype(dtype))
            blocks.each_block(samples, 1, lambda rows, decisions: prediction.vote(decisions, k))
    assert before and compiled() == before, compiled() - before
    assert prediction.is_ready(dtype, sparse)
"""


def test_what_is_prepared_suffices_for_all_data_of_its_kind():
    # In a process of its own: in this one, other tests may have had it compiled.
    done = subprocess.run([sys.executable, "-c", SIGNATURES], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
