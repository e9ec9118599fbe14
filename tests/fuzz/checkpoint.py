"""Checkpoints: the pairs of a training, of which some were never solved like that."""

from __future__ import annotations

import tempfile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from asking import asked

from fuzz.mutation import EXTREMES, mutate
from fuzz.tensors import edit_array, put_together, take_apart
from gpusvm.backends.one_vs_one import group_by_class, merge
from gpusvm.io.checkpoint import Checkpoint
from gpusvm.kernels import Kernel
from gpusvm.problem import Solution, from_support

_PARAMS = asked(kernel=Kernel("rbf", gamma=0.5))
_X = np.linspace(0, 1, 48, dtype=np.float32).reshape(12, 4)
_DATA = group_by_class(_X, np.arange(12) % 4, _PARAMS[0])
_PLACES = (0, 1, 2, 5, 6, 7, -1, *EXTREMES)


def _solution(n_support: int, told: bool) -> Solution:
    support = np.arange(n_support)
    coef = np.where(support < 3, 0.5, -0.25)  # three samples a class
    return Solution(from_support(6, support, coef), 0.5, 3, True, 1e-4 if told else None, 2.0)


def _seed(n_pairs: int, told: bool = True) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Checkpoint(Path(folder, "pairs"))
        checkpoint.open(_DATA, *_PARAMS[:2], "sklearn")
        checkpoint.solved = {index: _solution(2 + index % 4, told) for index in range(n_pairs)}
        checkpoint.flush()
        return checkpoint.path.read_bytes()


_SEEDS = (_seed(6), _seed(3, told=False), _seed(1), _seed(0))


def generate(rng: Random) -> tuple[str, bytes]:
    content = rng.choice(_SEEDS)
    if (kind := rng.random()) < 0.3:
        return "pairs", mutate(rng, content)
    metadata, arrays = take_apart(content)
    if kind < 0.4:
        metadata[rng.choice(list(metadata))] = rng.choice(("", "1", "2", "x" * 9999, "é\n\x1b"))
    elif kind < 0.6:
        _misplace(rng, arrays)
    elif kind < 0.8:
        edit_array(rng, arrays)
    return "pairs", put_together(rng, metadata, arrays, lie=kind >= 0.8)


def _misplace(rng: Random, arrays: dict[str, np.ndarray]) -> None:
    """Whole numbers that count or point elsewhere."""
    name = rng.choice(("pair", "n_support", "n_iter", "support"))
    if len(arrays[name]):
        arrays[name] = arrays[name].copy()
        arrays[name][rng.randrange(len(arrays[name]))] = np.uint64(rng.choice(_PLACES) % 2**64).astype(np.int64)


def read(path: Path) -> Any:
    checkpoint = Checkpoint(path)
    checkpoint.open(_DATA, *_PARAMS[:2], "sklearn")
    return checkpoint.solved


def use(result: Any) -> None:
    """Make a model of what was taken for solutions, the missing pairs being solved."""
    solutions = [result.get(index, _solution(2, told=True)) for index in range(len(_DATA.pairs))]
    model = merge(_DATA, solutions, *_PARAMS[:2], {"backend": "sklearn"})
    assert (np.abs(model.dual_coef) <= _PARAMS[0].C * (1 + 1e-12)).all() and np.isfinite(model.intercept).all()
    with np.errstate(over="ignore"):
        model.predict(_X)
